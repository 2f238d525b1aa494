// node-redis against one server: node redis.mjs PORT PROTOCOL
import assert from "node:assert/strict";
import { RESP_TYPES, createClient } from "redis";
import { anyBytes, sameSteps } from "./steps.mjs";

const [port, protocol] = process.argv.slice(2).map(Number);
const client = createClient({ socket: { port, host: "127.0.0.1", reconnectStrategy: false }, RESP: protocol });
client.on("error", (error) => {
  throw error;
});
await client.connect();

await sameSteps(`redis${protocol}`, (...words) => client.sendCommand(words));
assert.match(await client.sendCommand(["CLIENT", "INFO"]), /lib-name=node-redis\S* lib-ver=\d/);

const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
await bytes.set(anyBytes, anyBytes);
assert.deepEqual(await bytes.get(anyBytes), anyBytes);
assert.deepEqual(await bytes.echo(anyBytes), anyBytes);

for (let number = 0; number < 25; number += 1) await client.set(`page${protocol}:${number}`, `${number}`);
const found = [];
for await (const keys of client.scanIterator({ MATCH: `page${protocol}:*`, COUNT: 7 })) found.push(...keys);
assert.equal(new Set(found).size, 25);

// A transaction fails as a whole.
await assert.rejects(client.multi().incr("redis:transaction").set("redis:other", "1").exec());
assert.deepEqual(await client.mGet(["redis:transaction", "redis:other"]), [null, null]);

await client.close();
console.log("done");
