// Numbers and times for people.

const UNITS: [number, string][] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
];

/** A time as one number: 12 s, 3 min, 5 h, 2 d. `exact`: also parts of a second. */
export function duration(ms: number, exact = false): string {
  if (exact && ms < 10_000) return `${(ms / 1000).toFixed(ms < 1000 ? 3 : 2)} s`;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  for (const [size, unit] of UNITS) {
    if (seconds >= size * 2) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${count >= 10 || unit === 0 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

export function count(number: number): string {
  return number.toLocaleString("en");
}

/** "1 line", "2 lines". */
export function many(number: number, one: string, more = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : more}`;
}

export function clock(ms: number): string {
  const date = new Date(ms);
  const two = (number: number): string => String(number).padStart(2, "0");
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

const DATE_TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** A time with its day, as this browser's time zone has it. */
export function dateTime(ms: number): string {
  return DATE_TIME.format(new Date(ms));
}

/** Text of a guest, without what would change the direction of text or has no picture. */
export function plain(text: string): string {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    "\ufffd",
  );
}

/** The same, in one line. */
export function plainLine(text: string): string {
  return plain(text).replace(/[\t\n]+/g, " ");
}
