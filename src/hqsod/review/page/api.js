// What the page asks of the server. Every failure becomes an Error with a sentence for the person.

export class Overtaken extends Error {}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer: nothing was saved. Start hqsod review again, then press the key again.");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 409) throw new Overtaken(body.error);
  if (!answer.ok) throw new Error(body.error || `The server refused (${answer.status}): nothing was saved.`);
  return body;
}

const pairPath = (stem) => `/api/pairs/${encodeURIComponent(stem)}`;

export const aboutSet = () => ask("/api/set");

export function findPairs(query) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null);
  return ask(`/api/pairs?${new URLSearchParams(given)}`);
}

export const getCards = (stems) =>
  ask(`/api/cards?${new URLSearchParams(stems.map((stem) => ["stem", stem]))}`);

export const getPair = (stem) => ask(pairPath(stem));

export const decide = (stem, wish) =>
  ask(`${pairPath(stem)}/decision`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(wish),
  });

export const correct = (stem, png, { who, after, note, seen }) =>
  ask(`${pairPath(stem)}/correction?${new URLSearchParams({ who, after, note, seen })}`, {
    method: "POST",
    headers: { "Content-Type": "image/png" },
    body: png,
  });

export const thumbnailPath = (card) =>
  `/thumbnails/${encodeURIComponent(card.stem)}/${card.thumbnail}.jpg`;

export const closeUpPath = (pair) => `/close-ups/${encodeURIComponent(pair.stem)}/${pair.thumbnail}.png`;

export const tilePath = (pair, layer, level, row, column) =>
  `/tiles/${encodeURIComponent(pair.stem)}/${encodeURIComponent(layer)}/${pair.layers[layer]}/${level}-${row}-${column}.png`;
