// The files of directories, as the browser gives them.

/** The most files of a directory that is uploaded. */
export const MAX_FILES = 2_000;

/** A file and its path, which begins with the name of the directory. */
export interface Member {
  path: string;
  file: File;
}

export interface Tree {
  name: string;
  members: Member[];
}

/** What was dropped. A directory is read later. */
export interface Dropped {
  files: File[];
  directories: FileSystemDirectoryEntry[];
}

export class TooManyFiles extends Error {}

/** The entries must be taken while the event is handled. */
export function dropped(data: DataTransfer): Dropped {
  const made: Dropped = { files: [], directories: [] };
  for (const item of data.items) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry();
    const file = item.getAsFile();
    if (isDirectory(entry)) made.directories.push(entry);
    else if (file) made.files.push(file);
  }
  return made;
}

function isDirectory(entry: FileSystemEntry | null): entry is FileSystemDirectoryEntry {
  return entry?.isDirectory === true;
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile;
}

/** Finds all files of a directory. A directory without files is left out. */
export async function readTree(root: FileSystemDirectoryEntry): Promise<Tree> {
  const members: Member[] = [];
  const waiting: [path: string, directory: FileSystemDirectoryEntry][] = [[root.name, root]];
  let seen = 0;
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const [path, directory] = next;
    for (const entry of await entriesOf(directory)) {
      const inside = `${path}/${entry.name}`;
      // Links to directories above could have no end.
      if ((seen += 1) > 2 * MAX_FILES) throw new TooManyFiles();
      if (isDirectory(entry)) waiting.push([inside, entry]);
      else if (isFile(entry)) members.push({ path: inside, file: await fileOf(entry) });
      if (members.length > MAX_FILES) throw new TooManyFiles();
    }
  }
  return { name: root.name, members };
}

/** The files of a directory that was chosen in a dialog. */
export function chosenTree(files: File[]): Tree {
  if (files.length > MAX_FILES) throw new TooManyFiles();
  const members = files.map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  return { name: members[0]?.path.split("/")[0] ?? "", members };
}

async function entriesOf(directory: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = directory.createReader();
  const all: FileSystemEntry[] = [];
  // Each call reads some of them; no more is the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed));
    if (some.length === 0 || all.length > 2 * MAX_FILES) return all;
    all.push(...some);
  }
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((done, failed) => entry.file(done, failed));
}
