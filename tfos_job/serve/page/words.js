// What the page says, in both languages. A word with {parts} is filled in by `say`.

const WORDS = {
  en: {
    title: "Draw a character",
    field: "Drawing field",
    hint: "Draw here, or drop a picture",
    undo: "Undo",
    clear: "Clear",
    choose: "Choose a picture",
    keys: "Ctrl+Z takes back, Esc clears, Ctrl+V pastes a picture.",
    answer: "What it may be",
    nothing: "Candidates come after each stroke.",
    waiting: "…",
    copy: "Copy {name}, {share}",
    copied: "{name} is copied.",
    notCopied: "{name} could not be copied: the browser does not allow it.",
    best: "Most probable: {list}.",
    empty: "The field is empty.",
    strokes: "Your drawing has {num} strokes.",
    oneStroke: "Your drawing has one stroke.",
    picture: "Your picture: {name}.",
    seen: "What the network saw: {side} × {side} pixels",
    inverted: ", turned to dark on white",
    model: "Model {model}, step {step}, digest {digest}",
    doubt: "This may be no character: {reason}.",
    blank: "the picture is blank",
    away: "The server cannot be reached. Is it still running, and are you online?",
    slow: "The server has not answered for {seconds} seconds.",
    busy: "The server is busy. Next try in {seconds} s.",
    stillBusy: "The server is busy.",
    starting: "The server is not ready. Next try in {seconds} s.",
    stillStarting: "The server is not ready.",
    refused: "The server refused this: {error}",
    tooLarge: "The picture is too large for the server. {error}",
    noPicture: "That is no picture that can be read. {error}",
    keyNeeded: "The server asks for a key. Load the page again, and give the key as the password.",
    broken: "The server failed ({status}). {error}",
    notAnswer: "What came is not an answer of this server. Is another program at this address?",
    noFile: "There is no picture file in that. Drop or paste a PNG, JPEG or GIF.",
    again: "Try again",
    which: "Network",
    other: "中文",
    and: ", ",
    percent: "{number} percent",
  },
  zh: {
    title: "手写汉字识别",
    field: "书写区",
    hint: "在此书写，或拖入图片",
    undo: "撤销",
    clear: "清除",
    choose: "选择图片",
    keys: "Ctrl+Z 撤销，Esc 清除，Ctrl+V 粘贴图片。",
    answer: "识别结果",
    nothing: "每写一笔，候选字随即更新。",
    waiting: "……",
    copy: "复制“{name}”，{share}",
    copied: "已复制“{name}”。",
    notCopied: "浏览器不允许复制“{name}”。",
    best: "最可能是：{list}。",
    empty: "书写区是空的。",
    strokes: "您写了 {num} 笔。",
    oneStroke: "您写了 1 笔。",
    picture: "您的图片：{name}。",
    seen: "网络看到的图像：{side} × {side} 像素",
    inverted: "，已转为白底黑字",
    model: "模型 {model}，第 {step} 步，摘要 {digest}",
    doubt: "这可能不是一个字：{reason}。",
    blank: "图片是空白的",
    "cut off by the border": "被边缘截断",
    "more than one character": "不止一个字",
    "no strokes": "没有笔画",
    "too small": "太小",
    away: "无法连接服务器。服务器是否仍在运行，网络是否畅通？",
    slow: "服务器 {seconds} 秒内没有回应。",
    busy: "服务器繁忙，{seconds} 秒后重试。",
    stillBusy: "服务器繁忙。",
    starting: "服务器尚未就绪，{seconds} 秒后重试。",
    stillStarting: "服务器尚未就绪。",
    refused: "服务器拒绝了请求：{error}",
    tooLarge: "图片超过了服务器的限制。{error}",
    noPicture: "这不是可以读取的图片。{error}",
    keyNeeded: "服务器需要密钥。请重新载入页面，并以密钥作为密码。",
    broken: "服务器出错（{status}）。{error}",
    notAnswer: "收到的不是本服务器的回答。这个地址上是否运行着其他程序？",
    noFile: "其中没有图片文件。请拖入或粘贴 PNG、JPEG 或 GIF。",
    again: "重试",
    which: "网络",
    other: "English",
    and: "，",
    percent: "百分之{number}",
  },
};

const REMEMBERED = "tfos-job-language";

function preferred() {
  let kept = null;
  try {
    kept = localStorage.getItem(REMEMBERED);
  } catch {
    // Storage may be forbidden: then the browser's language it is, each time.
  }
  if (kept in WORDS) return kept;
  const known = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2).toLowerCase());
  return known.find((language) => language in WORDS) ?? "en";
}

let language = preferred();

/** The words of a key; a key without words, such as a reason that the server gives, is said as it is. */
export function say(key, parts = {}) {
  const words = Object.hasOwn(WORDS[language], key) ? WORDS[language][key] : key;
  return words.replace(/\{(\w+)\}/g, (whole, part) => (part in parts ? String(parts[part]) : whole)).trim();
}

/** A share as people write it: 97.3 %, and never 100 % of what is not certain. */
export function percentage(probability) {
  const percent = Math.min(100 * probability, probability < 1 ? 99.9 : 100);
  return percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(1)} %`;
}

/** Says everything on the page that has a key in `data-words`. */
export function sayAll() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = say(element.dataset.words);
  const toggle = document.getElementById("language");
  toggle.textContent = say("other");
  toggle.lang = language === "zh" ? "en" : "zh-Hans";
}

export function changeLanguage() {
  language = language === "zh" ? "en" : "zh";
  try {
    localStorage.setItem(REMEMBERED, language);
  } catch {
    // It holds until the page is left.
  }
  sayAll();
}
