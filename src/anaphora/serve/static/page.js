// The page of `anaphora serve`: one writes with a model, and sees inside.
//
// From top to bottom: helpers, models, the text and what the model read of it, its colours,
// continuations, what is inside, and models that predict.
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

const complaints = new Map();

/** Tells what went wrong with something, or that nothing did. */
function tell(what, text = "") {
  complaints.set(what, text);
  $("message").textContent = [...new Set(complaints.values())].filter(Boolean).join(" ");
}

// Asking the server

let key = "";

/** The server's answer to a question, or its error. */
async function ask(path, question, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = question === undefined ? {} : { method: "POST", body: JSON.stringify(question) };
  if (question !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  let found;
  try {
    answer = await fetch(path, { ...options, headers, signal });
    found = await answer.json();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server does not answer.");
  }
  if (answer.status === 401) {
    $("key-form").hidden = false;
    throw new Error(key ? "The API key is wrong." : "The server asks for an API key.");
  }
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
        tell(work);
      } catch (error) {
        tell(work, error.message);
      }
    }
    running = false;
  };
}

// Models

let models = [];
let model = null; // the one that is used

/** Whether the model writes, or predicts. */
const writes = () => model?.task === "language-model";

async function loadModels() {
  try {
    models = (await ask("/v1/models")).data;
  } catch (error) {
    tell("models", error.message);
    return;
  }
  tell("models");
  $("key-form").hidden = true;
  $("model").replaceChildren(
    ...models.map((one) => element("option", { value: one.id }, `${one.id} (${one.task})`)),
  );
  chooseModel();
  (writes() ? editor : $("input")).focus();
}

function chooseModel() {
  model = models.find((one) => one.id === $("model").value) ?? null;
  $("writer").hidden = !writes();
  $("predictor").hidden = writes() || !model;
  complaints.clear();
  cancelWriting();
  clearTimeout(timer);
  shown = nothing;
  continuations = free = holds = kept = [];
  colouring = { value: "", unit: 0 };
  inside = null;
  stale = 0;
  if (!writes()) {
    startPredicting();
    return;
  }
  offer([]);
  draw();
  drawContinuations();
  drawKept();
  drawInside();
  look();
  read();
}

$("model").addEventListener("change", chooseModel);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value;
  loadModels();
});

// The text, and what the model has read of it

const BLOCK = 1000; // characters that are read at a time: less than 4096 tokens, even of bytes

/** What was read: for each token its id, where it ends in the text, and what the model says of it. */
const nothing = { text: "", opening: 0, ids: [], ends: [], logprobs: [], next: [], colours: [] };
let shown = nothing;

const editor = $("text");
const encoder = new TextEncoder();

/** How many characters two texts begin with alike. */
function sharedLength(one, other) {
  let k = 0;
  while (k < one.length && one[k] === other[k]) k += 1;
  return k;
}

/** A text up to a block after a position, without cutting a word or, at least, a character. */
function upTo(text, position) {
  const part = text.slice(0, position + BLOCK);
  if (part === text) return text;
  const space = Math.max(part.lastIndexOf(" "), part.lastIndexOf("\n"));
  return space > position ? part.slice(0, space) : part.replace(/[\uD800-\uDBFF]$/, "");
}

/** A text in lower case, character by character, except those that would be longer in it. */
const lower = (text) =>
  text.replace(/./gsu, (one) => (one.toLowerCase().length > one.length ? one : one.toLowerCase()));

const UNKNOWN = "\ufffd"; // how character models show a character that they do not know

/** Where tokens end in a text in which they begin at a position; case and spaces may differ. */
function endsOf(text, position, tokens) {
  const folded = text.slice(0, position) + lower(text.slice(position));
  const words = tokens.map((token) => lower(token.trim() || token));
  let bytes = 0; // of a character that is not complete
  return tokens.map((token, k) => {
    const at = folded.indexOf(words[k], position);
    const character = String.fromCodePoint(text.codePointAt(position) ?? 0);
    if (token === UNKNOWN) {
      position += character.length;
    } else if (token.startsWith("bytes:")) {
      bytes += token.split("\\x").length - 1;
      if (bytes >= encoder.encode(character).length) {
        bytes = 0;
        position += character.length;
      }
    } else if (at >= 0 && !text.slice(position, at).trim()) {
      position = at + words[k].length;
    } else { // an unknown word, which ends where the next one begins, or at a space
      const chunk = /^\s*\S*/.exec(folded.slice(position))[0];
      const next = k + 1 < words.length ? chunk.trimStart().indexOf(words[k + 1], 1) : -1;
      position += next < 0 ? chunk.length : chunk.length - chunk.trimStart().length + next;
    }
    return position;
  });
}

/** Reads what is new in the text, a block at a time, from the state before it. */
const read = conflated(async () => {
  if (!writes()) return;
  const name = model.id;
  const text = editor.value;
  do {
    const old = shown;
    const same = sharedLength(text, old.text);
    const part = upTo(text, same);
    const { value, unit } = colouring;
    const question = { model: name, prompt: part, top: 10 };
    if (value) Object.assign(question, { values: [value], units: [unit] });
    const known = old.ends.findLastIndex((end) => end <= same) + 1;
    let found = await ask("/v1/inspect", { ...question, start: known });
    const other = old.ids.slice(0, found.start).findIndex((id, k) => id !== found.ids[k]);
    if (other >= 0) { // more text made other tokens of what was there
      found = await ask("/v1/inspect", { ...question, start: other });
    }
    const current = shown === old && name === model.id;
    if (!current || value !== colouring.value || unit !== colouring.unit) return;
    const start = found.start;
    const hidden = Math.max(0, found.opening - start);
    const position = start ? old.ends[start - 1] : 0;
    shown = {
      text: part,
      opening: found.opening,
      ids: found.ids,
      ends: [
        ...old.ends.slice(0, start),
        ...Array(hidden).fill(0),
        ...endsOf(part, position, found.tokens.slice(hidden)),
      ],
      logprobs: [...old.logprobs.slice(0, start), ...found.logprobs],
      next: [...old.next.slice(0, start), ...found.next],
      colours: [
        ...old.colours.slice(0, start),
        ...(value ? found.values[value].map((units) => units[0]) : []),
      ],
    };
    if (available.length === 0) offer(found.available);
    stale = Math.min(stale, rescaled() ? 0 : start);
    draw();
    look();
  } while (shown.text !== text && editor.value === text);
  if (editor.value === text && continuations.length === 0) write();
});

let stale = Infinity; // the first token that is drawn as it was before

/** Draws the text: the tokens that were read, coloured, then what was not, then the grey text. */
function draw() {
  const text = editor.value;
  const same = sharedLength(text, shown.text);
  const count = shown.ends.findLastIndex((end) => end <= same) + 1;
  const spans = $("tokens");
  while (spans.childElementCount > Math.min(count, stale)) spans.lastChild.remove();
  stale = Infinity;
  for (let k = spans.childElementCount; k < count; k += 1) {
    const span = element("span", {}, text.slice(shown.ends[k - 1] ?? 0, shown.ends[k]));
    span.style.backgroundColor = colour(k);
    spans.append(span);
  }
  $("tail").textContent = text.slice(shown.ends[count - 1] ?? 0);
  $("ghost").textContent = atEnd() && !hides ? (continuations[0] ?? "") : "";
}

const atEnd = () =>
  editor.selectionStart === editor.value.length && editor.selectionEnd === editor.value.length;

/** Types a text as the user would, so that it can be undone. */
function type(text, end = true) {
  editor.focus();
  if (end) editor.setSelectionRange(editor.value.length, editor.value.length);
  document.execCommand("insertText", false, text);
}

// Colours

/** What the text is coloured by: a unit of a value such as c_l0, or surprise if that is empty. */
let colouring = { value: "", unit: 0 };
let available = []; // the states and gates of the model
let scale = 1; // the value with the strongest colour

/** Offers the states and gates of a model. */
function offer(values) {
  available = values;
  $("colour").replaceChildren(
    element("option", { value: "" }, "surprise"),
    ...values.map((one) => element("option", { value: one.name }, `${one.name} (${one.kind})`)),
  );
  drawLegend();
}

/** Colours the text by a unit, or by surprise. */
function colourBy(value, unit) {
  const units = available.find((one) => one.name === value)?.units ?? 1;
  colouring = { value, unit: Math.min(Math.max(0, Math.trunc(unit) || 0), units - 1) };
  $("colour").value = value;
  $("unit").max = units - 1;
  $("unit").value = colouring.unit;
  shown = nothing;
  drawLegend();
  drawInside();
  read();
}

/** Whether the scale of colours has changed. */
function rescaled() {
  const old = scale;
  scale = shown.colours.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-6);
  return scale !== old;
}

const signed = (share) =>
  share < 0 ? `rgb(225 60 60 / ${-0.75 * share})` : `rgb(50 110 235 / ${0.75 * share})`;

/** The colour of a token. */
function colour(k) {
  if (colouring.value) return signed(shown.colours[k] / scale);
  const bits = -(shown.logprobs[k] ?? 0) / Math.LN2;
  return `rgb(200 95 15 / ${Math.min(0.75, bits / 14)})`;
}

function drawLegend() {
  $("unit").disabled = !colouring.value;
  const kind = available.find((one) => one.name === colouring.value)?.kind;
  $("hold").disabled = kind !== "state";
  $("legend").textContent = {
    state: "blue: positive, red: negative",
    gate: "blue: positive, red: negative (only states can be held)",
  }[kind] ?? "the stronger the colour, the less the model expected the token";
}

$("colour").addEventListener("change", () => colourBy($("colour").value, colouring.unit));
$("unit").addEventListener("change", () => colourBy(colouring.value, $("unit").valueAsNumber));

// Typing

let before = ""; // the text before the last change

editor.addEventListener("input", () => {
  const added = editor.value.startsWith(before) ? editor.value.slice(before.length) : null;
  before = editor.value;
  hides = false;
  cancelWriting();
  continuations = added && atEnd() && continuations[0]?.startsWith(added)
    ? continuations.filter((one) => one.startsWith(added)).map((one) => one.slice(added.length))
    : [];
  if (continuations[0] === "") continuations = [];
  free = [];
  draw();
  drawContinuations();
  read();
});

editor.addEventListener("keydown", (event) => {
  const grey = $("ghost").textContent;
  if (!grey || event.isComposing || event.altKey || event.metaKey || event.shiftKey) return;
  if (event.key === "Tab" && !event.ctrlKey) {
    event.preventDefault();
    type(grey);
  } else if (event.key === "ArrowRight" && event.ctrlKey) {
    event.preventDefault();
    type(/^\s*\S*/.exec(grey)[0]);
  } else if (event.key === "Escape") {
    event.preventDefault();
    hides = true;
    draw();
  }
});

// Continuations

let continuations = []; // the first is the grey text
let hides = false; // whether the grey text is hidden until there is another
let free = []; // the same without the units that are held
let holds = []; // units of states that are held while the model writes
let kept = []; // what was kept to be compared: a text, how it was continued, and with what
let writing = null; // aborts the requests that are running

function cancelWriting() {
  writing?.abort();
  writing = null;
}

/** The number in a field, if it is one of its range. */
function numberIn(id) {
  const { labels, min, max, step, validity, valueAsNumber } = $(id);
  if (!validity.valid && !(step && validity.stepMismatch)) {
    const kind = step ? "a number" : "an integer";
    throw new Error(`${labels[0].textContent.trim()}: expected ${kind} from ${min} to ${max}.`);
  }
  return valueAsNumber;
}

/** Asks for continuations of the whole text. */
async function write() {
  cancelWriting();
  hides = false;
  const mine = (writing = new AbortController());
  try {
    const question = {
      model: model.id,
      prompt: editor.value,
      max_tokens: numberIn("length"),
      temperature: numberIn("temperature"),
      top_p: numberIn("top-p"),
      n: numberIn("count"),
      seed: numberIn("seed"),
    };
    // One state, twice: with the units that are held, and free.
    const questions = holds.length ? [{ ...question, hold: holds }, question] : [question];
    const found = await Promise.all(
      questions.map((one) => ask("/v1/completions", one, mine.signal)),
    );
    if (writing !== mine) return;
    [continuations, free = []] = found.map(({ choices }) => choices.map((choice) => choice.text));
    draw();
    drawContinuations();
    tell("continuations");
  } catch (error) {
    if (error.name !== "AbortError") tell("continuations", error.message);
  }
}

/** Buttons in a list, each with a text and what it does. */
function buttons(id, texts, act) {
  $(id).replaceChildren(
    ...texts.map((text, k) => {
      const button = element("button", { type: "button" }, text || "∅");
      button.addEventListener("click", () => act(k));
      return element("li", {}, button);
    }),
  );
}

function drawContinuations() {
  buttons("continuations", continuations, (k) => type(continuations[k]));
  buttons("free", free, (k) => type(free[k]));
  $("comparison").hidden = free.length === 0;
  buttons("holds", namesOf(holds).map((name) => `${name} ✕`), (k) =>
    hold(holds.filter((_, other) => other !== k)));
}

/** How the units that are held are named. */
const namesOf = (units) =>
  units.map(({ state, unit, value }) => `${state}[${unit}] held at ${value}`);

/** Draws what was kept; each can be returned to, with its text, and goes on from its state. */
function drawKept() {
  $("kept").replaceChildren(
    ...kept.map((one) => {
      const back = element("button", { type: "button" }, "Return to this text");
      back.addEventListener("click", () => {
        editor.select();
        type(one.text, false);
      });
      const drop = element("button", { type: "button", ariaLabel: "Remove" }, "✕");
      drop.addEventListener("click", () => {
        kept = kept.filter((other) => other !== one);
        drawKept();
      });
      return element("li", {},
        element("p", { className: "hint" }, one.how, " ", back, " ", drop),
        element("ol", {}, ...one.continuations.map((text) => element("li", {}, text))));
    }),
  );
}

$("keep").addEventListener("click", () => {
  const fields = ["temperature", "top-p", "seed"].map((id) => `${id} ${$(id).value}`);
  const text = editor.value;
  const how = [`After “${text.slice(-20)}”`, ...fields, ...namesOf(holds)].join(", ");
  kept = [{ text, how, continuations }, ...kept];
  drawKept();
});

/** Holds these units, and no others, while the model writes. */
function hold(units) {
  holds = units;
  free = [];
  drawContinuations();
  write();
}

$("hold").addEventListener("click", () => {
  const { value: state, unit } = colouring;
  const others = holds.filter((one) => one.state !== state || one.unit !== unit);
  try {
    hold([...others, { state, unit, value: numberIn("held") }]);
    tell("hold");
  } catch (error) {
    tell("hold", error.message);
  }
});

for (const id of ["temperature", "top-p", "length", "count", "seed"]) {
  $(id).addEventListener("change", write);
}
$("again").addEventListener("click", () => {
  $("seed").valueAsNumber += 1;
  write();
});

// Inside: what the model does at the token under the mouse, or before the caret

let place = -1; // the token that is looked at
let inside = null; // what was found there
let timer = 0;

const tokenAt = (position) => shown.ends.findLastIndex((end) => end <= position);
const textOf = (k) => shown.text.slice(shown.ends[k - 1] ?? 0, shown.ends[k] ?? 0);

/** Looks at a token: its guesses at once, the rest when one stays there. */
function look(k = tokenAt(editor.selectionStart)) {
  place = k;
  $("place").textContent = textOf(k) ? `after ${visible(textOf(k))}` : "at the beginning";
  $("guesses").replaceChildren(
    ...(shown.next[k] ?? []).map((guess) => {
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
  clearTimeout(timer);
  timer = setTimeout(() => { lookInside(); lookAtSelection(); }, 100);
}

const MAX_TOKENS = 4000; // tokens that are looked at together

const lookInside = conflated(async () => {
  if (!writes()) return;
  const k = place;
  const read = shown;
  if (read === nothing || k >= read.ids.length) return; // looked at when it was read
  if (k < 0) {
    inside = null;
    drawInside();
    return;
  }
  const ids = read.ids.slice(read.opening, k + 1);
  const found = await ask("/v1/inspect", {
    model: model.id,
    prompt: ids.length ? ids : "",
    start: k,
    top: 0,
    values: available.map((one) => one.name),
    ...(k < MAX_TOKENS ? { connectivity: k } : {}),
  });
  if (read !== shown || k !== place) return;
  inside = found;
  drawInside();
});

/** Draws the states and gates as lines of units, and what the best guess depends on. */
function drawInside() {
  $("values").replaceChildren(
    ...(inside ? available : []).flatMap(({ name, units }) => {
      const row = inside.values[name]?.[0] ?? [];
      const largest = Math.max(...row.map(Math.abs), 1e-6);
      const chosen = name === colouring.value;
      const label = chosen ? `${name}[${colouring.unit}] ${row[colouring.unit]?.toFixed(3)}` : name;
      const canvas = element("canvas", { width: units, height: 1 });
      const pen = canvas.getContext("2d");
      row.forEach((value, unit) => {
        pen.fillStyle = signed(value / largest);
        pen.fillRect(unit, 0, 1, 1);
      });
      const unitAt = (event) => Math.floor((event.offsetX / canvas.clientWidth) * units);
      canvas.addEventListener("mousemove", (event) => {
        canvas.title = `${name}[${unitAt(event)}] = ${row[unitAt(event)]}`;
      });
      canvas.addEventListener("click", (event) => colourBy(name, unitAt(event)));
      return [element("span", { className: chosen ? "chosen" : "" }, label), canvas];
    }),
  );
  const norms = inside?.connectivity ?? [];
  const largest = Math.max(...norms, 1e-30);
  [...$("tokens").children].forEach((span, k) => {
    const share = (norms[k] ?? 0) / largest;
    span.style.boxShadow = share > 0.02 ? `inset 0 -3px rgb(30 150 90 / ${share})` : "";
  });
}

/** Finds the units that switch in the selected tokens, and where else they do. */
const lookAtSelection = conflated(async () => {
  if (!writes()) return;
  const read = shown;
  const start = tokenAt(editor.selectionStart) + 1;
  const end = tokenAt(editor.selectionEnd) + 1;
  const from = Math.max(0, start - MAX_TOKENS / 2);
  const until = Math.min(from + MAX_TOKENS, read.ids.length);
  if (start >= end || end > until || end - start === until - from) {
    $("selection").hidden = true;
    return;
  }
  const { span } = await ask("/v1/inspect", {
    model: model.id,
    prompt: read.ids.slice(read.opening, until),
    start: from,
    top: 0,
    span: [start, end],
  });
  if (read !== shown) return;
  $("selection").hidden = false;
  const labels = span.units.map(({ value, unit, contrast }) =>
    `${value}[${unit}] ${contrast > 0 ? "+" : "−"}${percent(Math.abs(contrast))}`);
  buttons("units", labels, (k) => colourBy(span.units[k].value, span.units[k].unit));
  const { ends, text } = read;
  const parts = span.places.map((one) => [ends[one.start - 1] ?? 0, ends[one.end - 1]]);
  const around = parts.map(([from, to]) =>
    `${text.slice(Math.max(0, from - 10), from)}[${text.slice(from, to)}]`.replaceAll("\n", "↵"));
  buttons("places", around, (k) => {
    editor.focus();
    editor.setSelectionRange(...parts[k]);
  });
  for (const id of ["units", "places"]) {
    if (!$(id).hasChildNodes()) $(id).append(element("li", {}, "none"));
  }
});

document.addEventListener("selectionchange", () => {
  if (document.activeElement !== editor) return;
  draw();
  look();
});

// The text under the mouse is the mirror's, below the field in which one types.
editor.addEventListener("mousemove", (event) => {
  if (event.buttons) return;
  const spans = [...$("tokens").children];
  const under = document.elementsFromPoint(event.clientX, event.clientY);
  const k = spans.indexOf(under.find((one) => one.parentElement === $("tokens")));
  if (k >= 0 && k !== place) look(k);
});
editor.addEventListener("mouseleave", () => look());

// Models that predict: classifiers, taggers, regressors and translators

const READS = {
  text: "One text per line",
  words: "One sentence per line, with spaces between its words and punctuation marks",
  series: "A series: one step per line, with a number for each channel",
};

function startPredicting() {
  if (!model) return;
  $("input-label").textContent = READS[model.reads];
  drawPrediction([]);
  predict();
}

/** What is in the box, as the model reads it. */
function typed() {
  const lines = $("input").value.split("\n").filter((line) => line.trim());
  if (model.reads !== "series") return lines;
  return [lines.map((line) => line.split(/[\s,;]+/).filter(Boolean).map(Number))];
}

const predict = conflated(async () => {
  if (writes()) return;
  const name = model.id;
  const input = typed();
  const question = { model: name, input };
  question.inside = input.length === 1 && input[0].length <= MAX_TOKENS;
  let records = [];
  try {
    if (input.length && input[0].length) records = (await ask("/v1/predict", question)).data;
  } finally {
    if (name === model.id) drawPrediction(records);
  }
});
$("input").addEventListener("input", predict);

/** Draws predictions and, of one, what is inside. */
function drawPrediction(records) {
  $("answers").replaceChildren(...records.flatMap(answerOf));
  const inner = records[0]?.inside;
  $("picture").replaceChildren(
    ...(inner?.attention ? [attentionOf(inner)] : []),
    ...Object.entries(inner?.states ?? {}).flatMap((entry) => statesOf(...entry, inner.steps)),
  );
}

/** A prediction, by the entries of its record. */
function answerOf(record) {
  if (record.tags) {
    const words = record.words.map((word, k) =>
      element("span", { title: percent(record.probabilities?.[k] ?? 1) },
        word, element("b", {}, record.tags[k])));
    return [element("div", { className: "words" }, ...words)];
  }
  const found = [];
  if (record.translation !== undefined) found.push(element("p", {}, record.translation));
  if (record.prediction !== undefined) found.push(element("p", {}, String(record.prediction)));
  for (const [name, number] of Object.entries(record.predictions ?? {})) {
    found.push(element("p", {}, `${name}: ${number}`));
  }
  if (record.probabilities) {
    const label = record.labels?.join(", ") ?? record.label;
    found.push(element("p", {}, element("b", {}, label || "no label")));
    for (const [name, share] of Object.entries(record.probabilities)) {
      const bar = element("div", { className: "bar" },
        element("span", {}, name), element("span", {}, percent(share)));
      bar.style.setProperty("--share", `${100 * share}%`);
      found.push(bar);
    }
  }
  return found;
}

/** The attention of each word of a translation to the words of the sentence. */
function attentionOf({ steps, targets, attention }) {
  const rows = targets.map((target, t) =>
    element("tr", {}, element("th", { scope: "row" }, target),
      ...attention[t].slice(0, steps.length).map((weight) => {
        const cell = element("td", { title: percent(weight) });
        cell.style.backgroundColor = signed(weight);
        return cell;
      })));
  const heads = ["", ...steps].map((step) => element("th", { scope: "col" }, step));
  return element("table", {},
    element("caption", {}, "Attention"),
    element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
}

/** A state over time: a column for each step, a line for each unit. */
function statesOf(name, rows, steps) {
  const units = rows[0].length;
  const canvas = element("canvas", { width: rows.length, height: units });
  const pen = canvas.getContext("2d");
  const largest = Math.max(...rows.map((row) => Math.max(...row.map(Math.abs))), 1e-6);
  rows.forEach((row, t) => row.forEach((value, unit) => {
    pen.fillStyle = signed(value / largest);
    pen.fillRect(t, unit, 1, 1);
  }));
  canvas.addEventListener("mousemove", (event) => {
    const t = Math.floor((event.offsetX / canvas.clientWidth) * rows.length);
    const unit = Math.floor((event.offsetY / canvas.clientHeight) * units);
    const step = steps[t] === undefined ? `step ${t}` : visible(steps[t]);
    canvas.title = `${name}[${unit}] at ${step}: ${rows[t]?.[unit]}`;
  });
  return [element("h2", {}, `${name} over time`), canvas];
}

loadModels();
