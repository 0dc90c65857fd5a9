// Words as a POSIX shell splits and quotes them.

/** A word that the shell reads as this text. */
export function quote(word: string): string {
  if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word)) return word;
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** Splits a command line into words: quotes and backslashes as in a shell, and nothing else. */
export function split(line: string): { words: string[] } | { error: string } {
  const words: string[] = [];
  let word: string | undefined;
  let at = 0;
  while (at < line.length) {
    const char = line[at] as string;
    at += 1;
    if (char === "'") {
      const end = line.indexOf("'", at);
      if (end < 0) return { error: "Close the single quote: write another ' at the end of the word." };
      word = (word ?? "") + line.slice(at, end);
      at = end + 1;
    } else if (char === '"') {
      word ??= "";
      for (;;) {
        const inner = line[at];
        if (inner === undefined) return { error: 'Close the double quote: write another " at the end of the word.' };
        at += 1;
        if (inner === '"') break;
        const next = line[at];
        if (inner === "\\" && next !== undefined && '$`"\\\n'.includes(next)) {
          if (next !== "\n") word += next;
          at += 1;
        } else {
          word += inner;
        }
      }
    } else if (char === "\\") {
      const next = line[at];
      if (next === undefined) return { error: "Write a character behind the backslash, or write two." };
      at += 1;
      if (next !== "\n") word = (word ?? "") + next;
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? "") + char;
    }
  }
  if (word !== undefined) words.push(word);
  return { words };
}

/** What a shell would do with the line, and this page does not. */
export function shellWords(line: string): boolean {
  const bare = line.replace(/\\.|'[^']*'|"(?:\\.|[^"\\])*"/gs, "");
  return /[|&;<>()$`*?]|(^|\s)~/.test(bare) || /"[^"]*[$`]/.test(line);
}
