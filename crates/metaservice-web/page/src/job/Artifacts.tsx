import type { VNode } from "preact";
import { bytes, many, plain } from "../format";
import { jobApi } from "../server";
import type { Artifact } from "../types";
import { Part } from "./Part";

/** The files that were fetched from a machine, with their downloads. */
export function Artifacts(props: { name: string; started: number; artifacts: Artifact[] }): VNode {
  const { name, started, artifacts } = props;
  const link = (artifact: string): string =>
    `${jobApi(name)}/artifact?${new URLSearchParams({ started: String(started), name: artifact })}`;
  return (
    <Part title={`${many(artifacts.length, "artifact")}`}>
      <ul class="lines columns-4">
        {artifacts.map((artifact) => (
          <li key={`${artifact.path} ${artifact.name ?? ""}`}>
            <code class="grow">{plain(artifact.path)}</code>
            <span class="dim-text">{artifact.to !== undefined && `to ${plain(artifact.to)}`}</span>
            {artifact.error !== undefined ? (
              <span class="problem">{plain(artifact.error)}</span>
            ) : (
              <span class="number">{artifact.bytes !== undefined && bytes(artifact.bytes)}</span>
            )}
            {artifact.name !== undefined && (
              <a
                class="button"
                href={link(artifact.name)}
                download
                aria-label={`Download ${plain(artifact.path)}`}
              >
                Download
              </a>
            )}
          </li>
        ))}
      </ul>
    </Part>
  );
}
