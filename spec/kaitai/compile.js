// compile.js LANGUAGE DIRECTORY: compiles vortex.ksy with the npm packages of package.json.
const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
// The packages lie where the caller installed them.
const load = createRequire(path.join(process.cwd(), 'package.json'));
const compiler = load('kaitai-struct-compiler');
const yaml = load('js-yaml');

const [language, directory] = process.argv.slice(2);
const grammar = yaml.load(fs.readFileSync(path.join(__dirname, 'vortex.ksy'), 'utf8'));
compiler.compile(language, grammar, null, false).then((files) => {
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(directory, name), text);
}).catch((error) => {
  console.error(String(error));
  process.exit(1);
});
