// The page of the service: its addresses as its own description lists them, and a form to try them.

const at = (id) => document.getElementById(id);
const form = at("form"), file = at("file");
let shown = []; // addresses of the picture and the result on the page
let latest = 0; // of the requests sent; only its answer is shown

function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

async function describe() {
  const [api, health] = await Promise.all(["openapi.json", "health"].map(async (path) => (await fetch(path)).json()));
  at("version").textContent = api.info.version;
  at("weights").textContent = health.weights ?? health.error;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      at("operations").append(article(method, path, operation));
      if (method === "post") addResult(path, operation);
    }
  }
  showCommand();
}

function article(method, path, operation) {
  const answers = document.createElement("dl");
  const taken = Object.keys(operation.requestBody?.content ?? {});
  if (taken.length) answers.append(element("dt", "body"), element("dd", taken.join(", ")));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const kinds = status === "200" ? Object.keys(answer.content ?? {}).join(", ") : answer.description;
    answers.append(element("dt", status), element("dd", kinds));
  }
  const said = element("p", [operation.summary, operation.description].filter(Boolean).join(". "));
  return element("article", "", element("h3", `${method.toUpperCase()} ${path}`), said, answers);
}

function addResult(path, operation) {
  const choice = document.createElement("input");
  Object.assign(choice, { type: "radio", name: "path", value: path, checked: !form.elements.path });
  at("results").append(element("label", "", choice, ` ${operation.summary}`));
}

const chosenPath = () => form.elements.path.value;

function showCommand() {
  at("command").textContent = `curl --data-binary @photo.jpg ${location.origin}${chosenPath()} > result.png`;
}

function say(text, bad = false) {
  at("said").textContent = text;
  at("said").classList.toggle("bad", bad);
}

async function send() {
  showCommand();
  const [picture] = file.files;
  if (!picture) return;
  at("chosen").textContent = picture.name;
  say("Working …");
  const number = ++latest;
  const started = performance.now();
  try {
    const answer = await fetch(chosenPath().slice(1), { method: "POST", body: picture });
    if (!answer.ok) throw new Error((await answer.json()).error);
    const result = await answer.blob();
    if (number === latest) show(picture, result, performance.now() - started);
  } catch (error) {
    if (number !== latest) return;
    at("figure").hidden = true;
    say(error instanceof TypeError ? "The service does not answer." : error.message, true);
  }
}

function show(picture, result, milliseconds) {
  shown.forEach((address) => URL.revokeObjectURL(address));
  shown = [picture, result].map((file) => URL.createObjectURL(file));
  [at("picture").src, at("result").src] = shown;
  Object.assign(at("save"), { href: shown[1], download: `${picture.name.replace(/\.\w+$/, "")}.png` });
  at("figure").hidden = false;
  say(`${(milliseconds / 1000).toFixed(2)} s, ${Math.ceil(result.size / 1000)} kB`);
}

const drop = at("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind !== "drop" || !event.dataTransfer.files.length) return;
    file.files = event.dataTransfer.files;
    send();
  });
}
form.addEventListener("change", send);
form.addEventListener("submit", (event) => event.preventDefault());
describe().catch((error) => say(`The service cannot be described: ${error.message}`, true));
