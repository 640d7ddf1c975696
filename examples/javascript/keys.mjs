// Keys that `neurovocal keys add` made, as options of a socket (docs/station/security.md).

import { readFileSync } from "node:fs";
import { join } from "node:path";

function keyIn(path, name) {
  const found = readFileSync(path, "utf8").match(new RegExp(`${name}-key = "(.{40})"`));
  if (!found) throw new Error(`'${path}' holds no ${name} key`);
  return found[1];
}

export function curveOf(folder) {
  const own = join(folder, "client.key_secret");
  return {
    curvePublicKey: keyIn(own, "public"),
    curveSecretKey: keyIn(own, "secret"),
    curveServerKey: keyIn(join(folder, "server.key"), "public"),
  };
}
