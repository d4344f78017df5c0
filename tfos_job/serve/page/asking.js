// One question to the server, and what may go wrong with it.

import { SIDE } from "./field.js";

const NUM_CANDIDATES = 5;
const PATIENCE_S = 30;
const LONGEST_PAUSE_S = 30;

/** A question without an answer: `words` is a key of words.js; `retryAfterS` is set if it can be asked again. */
export class Trouble extends Error {
  constructor(words, parts = {}, { retryAfterS = null, canRepeat = false } = {}) {
    super(words);
    Object.assign(this, { words, parts, retryAfterS, canRepeat: canRepeat || retryAfterS !== null });
  }
}

/** The names of the networks that answer; none where that is not known. */
export async function networks() {
  try {
    const response = await fetch("readyz");
    return (await response.json()).models.map((one) => one.model);
  } catch {
    return [];
  }
}

/** Asks a network, or the first one if it has no name, about what a field shows; returns the server's answer, with `model`, `step` and `digest`. Throws `Trouble`. */
export async function ask({ strokes, picture }, network, signal) {
  const late = AbortSignal.timeout(PATIENCE_S * 1000);
  const ended = new AbortController();
  for (const one of [signal, late]) one.addEventListener("abort", () => ended.abort());
  if (signal.aborted) ended.abort();
  try {
    const which = network ? `&model=${encodeURIComponent(network)}` : "";
    const response = await fetch(`predict?top_k=${NUM_CANDIDATES}&seen=1${which}`, {
      method: "POST",
      headers: { "Content-Type": picture ? picture.blob.type || "application/octet-stream" : "application/json" },
      body: picture ? picture.blob : JSON.stringify({ strokes, size: [SIDE, SIDE] }),
      signal: ended.signal,
    });
    return await answered(response);
  } catch (error) {
    if (signal.aborted || error instanceof Trouble) throw error;
    if (late.aborted) throw new Trouble("slow", { seconds: PATIENCE_S }, { canRepeat: true });
    throw new Trouble("away", {}, { canRepeat: true });
  }
}

async function answered(response) {
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error; // the connection ended
  }
  if (!response.ok) throw trouble(response, body);
  const answer = body?.predictions?.[0];
  if (!answer) throw new Trouble("notAnswer");
  if (answer.error) throw new Trouble("noPicture", { error: answer.error });
  return { ...answer, model: body.model, digest: body.digest, step: body.step ?? answer.step };
}

function trouble(response, body) {
  const error = typeof body?.error === "string" ? body.error : "";
  const seconds = pause(response.headers.get("Retry-After"));
  switch (response.status) {
    case 400:
      return error ? new Trouble("refused", { error }) : new Trouble("notAnswer");
    case 401:
    case 403:
      return new Trouble("keyNeeded");
    case 413:
      return new Trouble("tooLarge", { error });
    case 415:
      return new Trouble("noPicture", { error });
    case 429:
      return new Trouble("busy", { seconds }, { retryAfterS: seconds });
    case 503:
      return new Trouble("starting", { seconds }, { retryAfterS: seconds });
    case 404:
    case 405:
      return new Trouble("notAnswer");
    default:
      return new Trouble("broken", { status: response.status, error }, { canRepeat: true });
  }
}

function pause(header) {
  const seconds = Math.ceil(Number(header ?? 1));
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), LONGEST_PAUSE_S) : 1;
}
