// ioredis against one server: node ioredis.mjs PORT
import assert from "node:assert/strict";
import { Redis } from "ioredis";
import { anyBytes, sameSteps } from "./steps.mjs";

const client = new Redis({ port: Number(process.argv[2]), host: "127.0.0.1", retryStrategy: null, connectionName: "me" });
await new Promise((resolve, reject) => client.once("ready", resolve).once("error", reject));

await sameSteps("ioredis", (...words) => client.call(...words));
assert.match(await client.client("INFO"), / name=me /);

await client.set(anyBytes, anyBytes);
assert.deepEqual(await client.getBuffer(anyBytes), anyBytes);
assert.deepEqual(await client.echoBuffer(anyBytes), anyBytes);

const replies = await client.pipeline().set("ioredis:a", "1").incr("ioredis:a").get("ioredis:a").exec();
assert.deepEqual(replies, [[null, "OK"], [null, 2], [null, "2"]]);

const found = [];
for (let number = 0; number < 25; number += 1) await client.set(`io:${number}`, `${number}`);
for await (const keys of client.scanStream({ match: "io:*", count: 7 })) found.push(...keys);
assert.equal(new Set(found).size, 25);

// A transaction fails as a whole.
await assert.rejects(client.multi().incr("ioredis:transaction").set("ioredis:other", "1").exec());
assert.deepEqual(await client.mget("ioredis:transaction", "ioredis:other"), [null, null]);

await client.quit();
console.log("done");
