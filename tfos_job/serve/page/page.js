// The page: a field to draw in, questions to the server, and its answers.

import { Trouble, ask, networks } from "./asking.js";
import { Field } from "./field.js";
import { changeLanguage, percentage, say, sayAll } from "./words.js";

const MOST_TRIES = 4; // of one question, before it is the reader's turn
const SPOKEN = 3; // candidates that are read aloud

const at = (id) => document.getElementById(id);
let asked = null; // the AbortController of the last question
let answer = null; // to what is shown, or to what was shown just before
let problem = null; // {words, parts} while there is one
let told = null; // of what was copied

const field = new Field(at("canvas"), { onBegin: () => (at("hint").hidden = true), onChange: changed });

// --- questions -------------------------------------------------------------------------------------------------------

function changed() {
  asked?.abort();
  asked = null;
  told = null;
  if (field.isEmpty) {
    answer = problem = null;
    show();
  } else {
    question();
  }
}

async function question() {
  asked?.abort();
  const mine = new AbortController();
  asked = mine;
  problem = null;
  show();
  for (let tries = 1; ; tries += 1) {
    try {
      const found = await ask(field.shown, at("network").value, mine.signal);
      if (mine.signal.aborted) return;
      answer = found;
      problem = null;
      break;
    } catch (error) {
      if (mine.signal.aborted) return;
      if (!(error instanceof Trouble)) throw error;
      problem = error;
      if (error.retryAfterS === null || tries === MOST_TRIES) {
        if (error.retryAfterS !== null) problem = new Trouble(STILL[error.words], {}, { canRepeat: true });
        answer = null;
        break;
      }
      show();
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterS * 1000));
      if (mine.signal.aborted) return;
    }
  }
  asked = null;
  show();
  if (answer && field.shown.picture) field.frame(answer.box ?? null);
}

const STILL = { busy: "stillBusy", starting: "stillStarting" };

// --- what is seen and said -------------------------------------------------------------------------------------------

function show() {
  showTools();
  showProblem();
  showCandidates();
  const content = field.shown;
  if (field.isEmpty) at("field-content").textContent = say("empty");
  else if (content.picture) at("field-content").textContent = say("picture", { name: content.picture.name });
  else if (content.strokes.length === 1) at("field-content").textContent = say("oneStroke");
  else at("field-content").textContent = say("strokes", { num: content.strokes.length });
  at("told").textContent = told ? say(told.words, told.parts) : "";
}

function showTools() {
  const isHidden = field.shown.picture && !field.shown.picture.bitmap; // the browser cannot show it
  at("hint").hidden = !(field.isEmpty || isHidden);
  at("hint").textContent = isHidden ? field.shown.picture.name : say("hint");
  at("undo").disabled = !field.canUndo;
  at("clear").disabled = field.isEmpty;
}

function showProblem() {
  at("problem").hidden = !problem;
  at("problem-text").textContent = problem ? say(problem.words, problem.parts) : "";
  at("again").hidden = !(problem?.canRepeat && problem.retryAfterS === null);
}

function showCandidates() {
  const guesses = answer ? (answer.top.length ? answer.top : (answer.guesses ?? [])) : [];
  const list = at("candidates");
  list.classList.toggle("doubtful", Boolean(answer?.doubtful));
  list.classList.toggle("old", Boolean(asked));
  list.setAttribute("aria-busy", String(Boolean(asked)));
  // The same elements get new candidates, so that the focus stays where it is.
  while (list.children.length > guesses.length) list.lastElementChild.remove();
  while (list.children.length < guesses.length) list.append(candidate());
  guesses.forEach((guess, number) => fill(list.children[number].firstElementChild, guess));
  at("nothing").hidden = Boolean(answer || problem);
  at("nothing").textContent = say(asked ? "waiting" : "nothing");
  at("doubt").hidden = !answer?.doubtful;
  at("doubt").textContent = answer?.doubtful ? say("doubt", { reason: say(answer.doubtful) }) : "";
  showSeen();
  showModel();
  if (!asked) speak(guesses);
}

function candidate() {
  const button = document.createElement("button");
  button.type = "button";
  for (const part of ["name", "bar", "share"]) {
    const span = document.createElement("span");
    span.className = part;
    button.append(span);
  }
  button.children[1].append(document.createElement("span"));
  button.addEventListener("click", () => copy(button));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function fill(button, guess) {
  const [name, bar, share] = button.children;
  bar.firstElementChild.style.width = `${100 * guess.probability}%`;
  name.textContent = guess.character;
  name.classList.toggle("single", [...guess.character].length === 1);
  if (isChinese(guess.character)) name.lang = "zh-Hans";
  else name.removeAttribute("lang");
  share.textContent = percentage(guess.probability);
  button.setAttribute("aria-label", say("copy", { name: guess.character, share: share.textContent }));
}

function isChinese(text) {
  return /\p{Script=Han}/u.test(text);
}

function showSeen() {
  at("seen").hidden = !answer?.seen;
  if (!answer?.seen) return;
  const picture = at("seen-picture");
  const caption = () => {
    const side = picture.naturalWidth;
    at("seen-words").textContent = say("seen", { side }) + (answer?.inverted ? say("inverted") : "");
  };
  picture.onload = caption;
  const source = `data:image/png;base64,${answer.seen}`;
  if (picture.src === source) caption();
  else picture.src = source;
}

function showModel() {
  if (!answer) return;
  const { model, step } = answer;
  at("model").textContent = say("model", { model, step, digest: String(answer.digest ?? "").slice(0, 12) });
}

function speak(guesses) {
  const list = guesses
    .slice(0, SPOKEN)
    .map((guess) => `${guess.character} ${say("percent", { number: Math.round(100 * guess.probability) })}`)
    .join(say("and") + " ");
  const best = list ? say("best", { list }) : "";
  at("spoken").textContent = answer?.doubtful ? `${at("doubt").textContent} ${best}` : best;
}

// --- what the reader does --------------------------------------------------------------------------------------------

async function copy(button) {
  const name = button.querySelector(".name").textContent;
  const isCopied = await copied(name);
  told = { words: isCopied ? "copied" : "notCopied", parts: { name } };
  show();
}

async function copied(text) {
  try {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // It may be forbidden, and is not there without https; the old way needs neither.
  }
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.readOnly = true;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } finally {
    area.remove();
    focused?.focus();
  }
}

function open(files) {
  const file = [...(files ?? [])].find((one) => !one.type || one.type.startsWith("image/")) ?? files?.[0];
  if (file) {
    field.open(file, file.name);
  } else {
    problem = new Trouble("noFile");
    show();
  }
}

at("undo").addEventListener("click", () => field.undo());
at("clear").addEventListener("click", () => field.clear());
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => {
  if (at("file").files.length) open(at("file").files);
  at("file").value = ""; // or the same file could not be chosen again
});
at("again").addEventListener("click", () => question());
at("language").addEventListener("click", () => {
  changeLanguage();
  show();
});

document.addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.altKey) return;
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    field.undo();
  } else if (event.key === "Escape") {
    field.clear();
  }
});
document.addEventListener("paste", (event) => {
  if (!(event.target instanceof HTMLInputElement)) open(event.clipboardData?.files);
});

let depth = 0; // of the elements that something is dragged over
const over = (change) => {
  depth = Math.max(0, depth + change);
  at("paper").classList.toggle("over", depth > 0);
};
document.addEventListener("dragenter", () => over(1));
document.addEventListener("dragleave", () => over(-1));
document.addEventListener("dragover", (event) => event.preventDefault()); // or the browser would go to the file
document.addEventListener("drop", (event) => {
  event.preventDefault();
  over(-depth);
  open(event.dataTransfer?.files);
});

at("network").addEventListener("change", changed);

sayAll();
show();
const names = await networks();
for (const name of names.length > 1 ? names : []) at("network").add(new Option(name));
at("which").hidden = names.length < 2;
