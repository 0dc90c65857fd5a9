import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { bytes, plain, plainLine } from "../format";
import { get, reason } from "../server";
import { Copy } from "../ui/Copy";
import { Link } from "../ui/Link";
import { Empty, Problem } from "../ui/States";
import { fileApi, filesAddress, join, type Look, type Place } from "./api";

type Seen = { state: "loading" } | { state: "seen"; look: Look } | { state: "failed"; message: string };

/** Shows a file: text as text, a picture as a picture, and nothing else. */
export function Preview(props: { place: Place; directory: string; file: string }): VNode {
  const { place, directory, file } = props;
  const path = join(directory, file);
  const [seen, setSeen] = useState<Seen>({ state: "loading" });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    setSeen({ state: "loading" });
    get<Look>(fileApi(place, "look", path), abort.signal).then(
      (look) => setSeen({ state: "seen", look }),
      (error: unknown) => {
        if (!abort.signal.aborted) setSeen({ state: "failed", message: reason(error) });
      },
    );
    return () => abort.abort();
  }, [path, place.started, round]);
  const name = plainLine(file);
  const look = seen.state === "seen" ? seen.look : undefined;
  return (
    <section class="preview" aria-label={`The file ${name}`}>
      <div class="preview-head">
        <h2 title={name}>{name}</h2>
        <span class="dim-text">{look && bytes(look.size)}</span>
        <div class="tools">
          {look?.kind === "text" && <Copy text={() => look.text} what="the text that is shown" />}
          <a class="button" href={fileApi(place, "file", path)} download>
            Download
          </a>
          <Link class="button" label="Close the file" to={filesAddress(place.name, directory)}>
            ×
          </Link>
        </div>
      </div>
      {seen.state === "loading" && <Empty title="Reading the file" busy />}
      {seen.state === "failed" && (
        <Problem title="The file cannot be read" message={seen.message} again={() => setRound(round + 1)} />
      )}
      {look && <Content look={look} picture={fileApi(place, "picture", path)} name={name} />}
    </section>
  );
}

function Content(props: { look: Look; picture: string; name: string }): VNode {
  const { look, picture, name } = props;
  const [failed, setFailed] = useState(false);
  if (look.kind === "text") {
    return (
      <>
        {look.cut && <p class="preview-note">This is the beginning of the file. Download it to see all.</p>}
        {look.text === "" ? (
          <Empty title="The file is empty" />
        ) : (
          <pre class="preview-text" tabIndex={0} role="region" aria-label={`Text of ${name}`}>
            {plain(look.text)}
          </pre>
        )}
      </>
    );
  }
  if (look.kind === "picture" && !failed) {
    return (
      <div class="preview-picture">
        <img src={picture} alt={`The picture ${name}`} onError={() => setFailed(true)} />
      </div>
    );
  }
  return (
    <Empty title={look.kind === "picture" ? "The picture cannot be shown" : "This is not text"}>
      <p>Download the file to use it.</p>
    </Empty>
  );
}
