/** Numbers with nouns. */

/** Return the plural of a noun: `orders`, `entries`. */
export function plural(noun) {
  return noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`;
}

/** Return a number, which can be a string as those of 64 bits are, with its noun: `1 order`, `2 orders`. */
export function counted(number, noun) {
  return `${number} ${Number(number) === 1 ? noun : plural(noun)}`;
}
