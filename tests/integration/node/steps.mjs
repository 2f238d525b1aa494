// The same steps by each client library. The caller gives `call`, which sends any command and returns its reply.
import assert from "node:assert/strict";

export const anyBytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));

export async function sameSteps(name, call) {
  const key = (part) => `${name}:${part}`;
  assert.equal(await call("SET", key("colour"), "blü"), "OK");
  assert.equal(await call("SET", key("colour"), "red", "NX"), null);
  assert.equal(await call("GET", key("colour")), "blü");
  assert.equal(await call("GET", key("nothing")), null);
  assert.equal(await call("INCRBY", key("count"), "41"), 41);
  assert.equal(await call("INCR", key("count")), 42);
  assert.deepEqual(await call("MGET", key("count"), key("nothing")), ["42", null]);
  assert.equal(await call("DEL", key("count"), key("nothing")), 1);
  assert.equal(await call("PING"), "PONG");
  await assert.rejects(call("HSET", key("hash"), "field", "value"), /unknown command HSET/);
  const token = await call("LOCK", key("printer"));
  assert.equal(typeof token, "number");
  assert.equal(await call("UNLOCK", key("printer"), `token=${token}`), "OK");
}
