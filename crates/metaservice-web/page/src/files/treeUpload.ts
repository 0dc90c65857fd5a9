// The upload of a directory: its files, one after the other.

import { computed, signal } from "@preact/signals";
import { many, plainLine } from "../format";
import { join, type Place } from "./api";
import type { Tree } from "./tree";
import { type Sending, Upload, type UploadState } from "./upload";

export class TreeUpload implements Sending {
  readonly error = signal("");
  readonly path: string;
  readonly size: number;
  #own = signal<UploadState>("waits");
  #current = signal<Upload | undefined>(undefined);
  /** How many files are in the guest, and how many bytes they have. */
  #files = signal(0);
  #bytes = signal(0);
  #isOver = false;

  constructor(
    readonly place: Place,
    readonly directory: string,
    readonly tree: Tree,
    readonly done: () => void,
  ) {
    this.path = `${join(directory, tree.name)}/`;
    this.size = tree.members.reduce((sum, { file }) => sum + file.size, 0);
  }

  readonly sent = computed(() => this.#bytes.value + (this.#current.value?.sent.value ?? 0));

  readonly state = computed<UploadState>(() =>
    this.#own.value === "sends" && this.#current.value?.state.value === "retries"
      ? "retries"
      : this.#own.value,
  );

  readonly count = computed(() => {
    const all = this.tree.members.length;
    return this.#own.value === "done" ? many(all, "file") : `${this.#files.value} of ${many(all, "file")}`;
  });

  again(): void {
    this.#own.value = "waits";
  }

  /** Sends the files that are missing, up to the first that fails. */
  async run(): Promise<void> {
    this.error.value = "";
    this.#own.value = "sends";
    const { members } = this.tree;
    for (let at = this.#files.value; at < members.length && !this.#isOver; at += 1) {
      const member = members[at];
      if (!member) break;
      const upload = new Upload(this.place, this.directory, member.file, () => {}, member.path);
      this.#current.value = upload;
      await upload.run();
      this.#current.value = undefined;
      if (this.#isOver) return;
      if (upload.state.value !== "done") {
        this.error.value = `${plainLine(member.path)}: ${upload.error.value}`;
        this.#own.value = "failed";
        return;
      }
      this.#bytes.value += member.file.size;
      this.#files.value += 1;
    }
    if (this.#isOver) return;
    this.#own.value = "done";
    this.done();
  }

  /** Ends it. The files that are in the guest stay there. */
  cancel(): void {
    this.#isOver = true;
    this.#current.value?.cancel();
  }
}
