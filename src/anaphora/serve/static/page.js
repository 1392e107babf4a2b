// The page of `anaphora serve`: one writes with a model, and sees inside.
//
// From top to bottom: helpers, models, the text and what the model read of it, continuations.
// Texts of models and users are only ever set as text, never as HTML.

const $ = (id) => document.getElementById(id);

/** A new element with properties and children; texts among the children stay texts. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Characters that do not show, made visible. */
const visible = (text) =>
  text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

/** Tells what went wrong, or nothing. */
const tell = (text) => { $("message").textContent = text; };

// Asking the server

let key = "";

/** The server's answer to a question, or its error. */
async function ask(path, question, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = question === undefined ? {} : { method: "POST", body: JSON.stringify(question) };
  if (question !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server does not answer.");
  }
  const found = await answer.json();
  if (answer.status === 401) $("key-form").hidden = false;
  if (!answer.ok) throw new Error(found.error.message);
  return found;
}

/** Runs a function now, or once more after it has ended if it runs already. */
function conflated(work) {
  let running = false;
  let again = false;
  return async function run() {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      try {
        await work();
        tell("");
      } catch (error) {
        tell(error.message);
      }
    }
    running = false;
  };
}

// Models

let models = [];
let model = null; // the one that is used

async function loadModels() {
  try {
    models = (await ask("/v1/models")).data;
  } catch (error) {
    tell(error.message);
    return;
  }
  tell("");
  $("key-form").hidden = true;
  $("model").replaceChildren(
    ...models.map((one) => element("option", { value: one.id }, `${one.id} (${one.task})`)),
  );
  chooseModel();
}

function chooseModel() {
  model = models.find((one) => one.id === $("model").value) ?? null;
  const writes = model?.task === "language-model";
  $("writer").hidden = !writes;
  if (!writes) return;
  shown = nothing;
  continuations = [];
  draw();
  read();
  $("text").focus();
}

$("model").addEventListener("change", chooseModel);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value;
  loadModels();
});

// The text, and what the model has read of it

const BLOCK = 1000; // characters that are read at a time

/** What was read: for each token its id, where it ends in the text, and what the model says of it. */
const nothing = { text: "", hidden: 0, ids: [], ends: [], logprobs: [], next: [] };
let shown = nothing;

const editor = $("text");
const encoder = new TextEncoder();

/** How many characters two texts begin with alike. */
function sharedLength(one, other) {
  let k = 0;
  while (k < one.length && one[k] === other[k]) k += 1;
  return k;
}

/** Where tokens end in a text in which they follow a position; tokenizers may have changed spaces. */
function endsOf(text, position, tokens) {
  let bytes = 0; // of a character that is not complete
  return tokens.map((token) => {
    const word = token.trim() || token;
    const at = text.indexOf(word, position);
    if (token.startsWith("bytes:")) {
      bytes += token.split("\\x").length - 1;
      const character = String.fromCodePoint(text.codePointAt(position) ?? 0);
      if (bytes >= encoder.encode(character).length) {
        bytes = 0;
        position += character.length;
      }
    } else if (at >= 0 && !text.slice(position, at).trim()) {
      position = at + word.length;
    } else {
      position += /^\s*\S*/.exec(text.slice(position))[0].length; // an unknown word
    }
    return position;
  });
}

/** Reads what is new in the text, a block at a time, from the state before it. */
const read = conflated(async () => {
  const name = model.id;
  const text = editor.value;
  do {
    const same = sharedLength(text, shown.text);
    const part = text.slice(0, same + BLOCK);
    const question = { model: name, prompt: part, top: 10 };
    const read = shown.ends.findLastIndex((end) => end <= same) + 1;
    let found = await ask("/v1/inspect", { ...question, start: read });
    if (shown.ids.slice(0, found.start).some((id, k) => id !== found.ids[k])) {
      found = await ask("/v1/inspect", question); // more text made other tokens of what was there
    }
    if (name !== model.id) return;
    const start = found.start;
    const hidden = Math.max(0, found.opening - start);
    const before = start ? shown.ends[start - 1] : 0;
    shown = {
      text: part,
      ids: found.ids,
      ends: [
        ...shown.ends.slice(0, start),
        ...Array(hidden).fill(0),
        ...endsOf(part, before, found.tokens.slice(hidden)),
      ],
      logprobs: [...shown.logprobs.slice(0, start), ...found.logprobs],
      next: [...shown.next.slice(0, start), ...found.next],
    };
    $("tokens").dataset.stale = start;
    draw();
    look();
  } while (shown.text !== text && editor.value === text);
  if (editor.value === text && continuations.length === 0) write();
});

/** Draws the text: the tokens that were read, coloured, then what was not, then the grey text. */
function draw() {
  const text = editor.value;
  const same = sharedLength(text, shown.text);
  const count = shown.ends.findLastIndex((end) => end <= same) + 1;
  const spans = $("tokens");
  const kept = Math.min(count, spans.dataset.stale ?? count);
  delete spans.dataset.stale;
  while (spans.childElementCount > kept) spans.lastChild.remove();
  for (let k = spans.childElementCount; k < count; k += 1) {
    const span = element("span", {}, text.slice(shown.ends[k - 1] ?? 0, shown.ends[k]));
    span.style.backgroundColor = colour(k);
    spans.append(span);
  }
  $("tail").textContent = text.slice(shown.ends[count - 1] ?? 0);
  const grey = atEnd() ? (continuations[0] ?? "") : "";
  $("ghost").textContent = grey;
  $("mirror").append(grey.endsWith("\n") || text.endsWith("\n") ? "\u200b" : "");
}

/** The colour of a token: the more it surprised the model, the stronger. */
function colour(k) {
  const bits = -(shown.logprobs[k] ?? 0) / Math.LN2;
  return `rgb(235 125 20 / ${Math.min(0.75, bits / 14)})`;
}

const atEnd = () =>
  editor.selectionStart === editor.value.length && editor.selectionEnd === editor.value.length;

/** Types a text as the user would, so that it can be undone. */
function type(text, end = true) {
  editor.focus();
  if (end) editor.setSelectionRange(editor.value.length, editor.value.length);
  document.execCommand("insertText", false, text);
}

let before = ""; // the text before the last change

editor.addEventListener("input", () => {
  const added = editor.value.startsWith(before) ? editor.value.slice(before.length) : null;
  before = editor.value;
  cancelWriting();
  continuations = added && atEnd() && continuations[0]?.startsWith(added)
    ? continuations.filter((one) => one.startsWith(added)).map((one) => one.slice(added.length))
    : [];
  if (continuations[0] === "") continuations = [];
  draw();
  drawContinuations();
  read();
});

editor.addEventListener("keydown", (event) => {
  const grey = $("ghost").textContent;
  if (!grey || event.altKey || event.metaKey || event.shiftKey) return;
  if (event.key === "Tab" && !event.ctrlKey) {
    event.preventDefault();
    type(grey);
  } else if (event.key === "ArrowRight" && event.ctrlKey) {
    event.preventDefault();
    type(/^\s*\S*/.exec(grey)[0]);
  } else if (event.key === "Escape") {
    event.preventDefault();
    continuations = [];
    draw();
  }
});

/** Shows what the model would write next at the caret. */
function look() {
  const caret = editor.selectionStart;
  const k = shown.ends.findLastIndex((end) => end <= caret);
  const guesses = shown.next[k] ?? [];
  const here = editor.value.slice(shown.ends[k - 1] ?? 0, shown.ends[k] ?? 0);
  $("place").textContent = here ? `after ${visible(here)}` : "at the beginning";
  $("guesses").replaceChildren(
    ...guesses.map((guess) => {
      const button = element(
        "button",
        { type: "button", disabled: guess.text.startsWith("bytes:") },
        element("span", {}, visible(guess.text)),
        element("span", {}, percent(guess.probability)),
      );
      button.style.setProperty("--share", `${100 * guess.probability}%`);
      button.addEventListener("click", () => type(guess.text, false));
      return element("li", {}, button);
    }),
  );
}

document.addEventListener("selectionchange", () => {
  if (document.activeElement !== editor) return;
  draw();
  look();
});

// Continuations

let continuations = []; // the first is the grey text
let writing = null; // aborts the request that is running

function cancelWriting() {
  writing?.abort();
  writing = null;
}

/** Asks for continuations of the whole text. */
async function write() {
  cancelWriting();
  const mine = (writing = new AbortController());
  const number = (id) => $(id).valueAsNumber;
  const question = {
    model: model.id,
    prompt: editor.value,
    max_tokens: number("length"),
    temperature: number("temperature"),
    top_p: number("top-p"),
    n: number("count"),
    seed: number("seed"),
  };
  try {
    const found = await ask("/v1/completions", question, mine.signal);
    if (writing !== mine) return;
    continuations = found.choices.map((choice) => choice.text);
    draw();
    drawContinuations();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message);
  }
}

function drawContinuations() {
  $("continuations").replaceChildren(
    ...continuations.map((text) => {
      const button = element("button", { type: "button" }, text || "∅");
      button.addEventListener("click", () => type(text));
      return element("li", {}, button);
    }),
  );
}

for (const id of ["temperature", "top-p", "length", "count", "seed"]) {
  $(id).addEventListener("change", write);
}
$("again").addEventListener("click", () => {
  $("seed").valueAsNumber += 1;
  write();
});

loadModels();
