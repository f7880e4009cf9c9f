// The page of the service: its addresses as its own description lists them, and a form to try them.

const at = (id) => document.getElementById(id);
const form = at("form"), file = at("file");
const ENDINGS = { "image/png": "png", "image/webp": "webp", "image/jpeg": "jpg" };
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
  at("weights").textContent = health.error ?? `${health.weights}, ${health.size} x ${health.size}, on ${health.runs_on}, ${health.precision}`;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      at("operations").append(article(method, path, operation));
      if (method === "post") addResult(path, operation);
    }
  }
  showSettings();
}

function article(method, path, operation) {
  const answers = document.createElement("dl");
  for (const { name, description } of operation.parameters ?? []) {
    answers.append(element("dt", name), element("dd", description));
  }
  const taken = Object.keys(operation.requestBody?.content ?? {});
  if (taken.length) answers.append(element("dt", "body"), element("dd", taken.join(", ")));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const kinds = status === "200" ? Object.keys(answer.content ?? {}).join(", ") : answer.description;
    answers.append(element("dt", status), element("dd", kinds));
  }
  const said = element("p", [operation.summary, operation.description].filter(Boolean).join(". "));
  return element("article", "", element("h3", `${method.toUpperCase()} ${path}`), said, answers);
}

// ---- settings: a field for each parameter of the address, as the description has it

function addResult(path, operation) {
  const choice = document.createElement("input");
  Object.assign(choice, { type: "radio", name: "path", value: path, checked: !form.elements.path });
  at("results").append(element("label", "", choice, ` ${operation.summary}`));
  const settings = document.createElement("fieldset");
  Object.assign(settings, { className: "settings", name: path });
  settings.append(...operation.parameters.map(setting));
  if (operation.requestBody.content["multipart/form-data"].schema.properties.background) {
    const image = Object.assign(document.createElement("input"), { type: "file", accept: file.accept });
    image.dataset.file = "background";
    settings.append(labelled("background image", "Instead of a colour.", image));
  }
  at("settings").append(settings);
}

function setting({ name, description, schema }) {
  const field = document.createElement(schema.enum ? "select" : "input");
  field.dataset.parameter = name;
  if (schema.enum) field.append(...schema.enum.map((value) => new Option(value, value)));
  else if (schema.type === "boolean") field.type = "checkbox";
  else if (schema.type !== "string") Object.assign(field, { type: "number", min: schema.minimum, step: schema.type === "integer" ? 1 : 0.05 });
  return labelled(name.replaceAll("_", " "), description, field);
}

function labelled(name, description, field) {
  const label = element("label", "");
  if (field.type === "checkbox") label.append(field, ` ${name}`);
  else label.append(name, field);
  label.append(element("span", description));
  return label;
}

const chosenPath = () => form.elements.path.value;
const chosen = (kind) => [...form.elements[chosenPath()].querySelectorAll(`[data-${kind}]`)];

function query() {
  const asked = new URLSearchParams();
  for (const field of chosen("parameter")) {
    const value = field.type === "checkbox" ? field.checked && "true" : field.value;
    if (value && !(field.options && field.selectedIndex === 0)) asked.set(field.dataset.parameter, value);
  }
  return asked.size ? `?${asked}` : "";
}

const background = () => chosen("file")[0]?.files[0];

function showSettings() {
  for (const settings of at("settings").children) settings.hidden = settings.name !== chosenPath();
  const body = background() ? "-F file=@photo.jpg -F background=@background.jpg" : "--data-binary @photo.jpg";
  at("command").textContent = `curl ${body} '${location.origin}${chosenPath()}${query()}' > result`;
}

function say(text, bad = false) {
  at("said").textContent = text;
  at("said").classList.toggle("bad", bad);
}

function body(picture) {
  if (!background()) return picture;
  const sent = new FormData();
  sent.append("file", picture);
  sent.append("background", background());
  return sent;
}

async function send() {
  showSettings();
  const [picture] = file.files;
  if (!picture) return;
  at("chosen").textContent = picture.name;
  say("Working …");
  const number = ++latest;
  const started = performance.now();
  try {
    const answer = await fetch(chosenPath().slice(1) + query(), { method: "POST", body: body(picture) });
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
  Object.assign(at("save"), { href: shown[1], download: `${picture.name.replace(/\.\w+$/, "")}.${ENDINGS[result.type]}` });
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
