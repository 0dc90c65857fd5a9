import { useEffect, useState } from "preact/hooks";
import { Feed } from "../feed";
import { get, reason, Refused } from "../server";
import type { LogLength } from "../types";

export type Opened =
  | { state: "loading" }
  | { state: "open"; started: number; length: LogLength }
  | { state: "none"; code: string; message: string };

/** Opens the log of a job, and follows its length. A later job of this name is opened again. */
export function useLog(path: string): [Opened, () => void] {
  const [opened, setOpened] = useState<Opened>({ state: "loading" });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let feed: Feed<LogLength> | undefined;
    let isOver = false;
    const fail = (error: unknown): void => {
      if (isOver) return;
      const code = error instanceof Refused ? error.code : "Failed";
      setOpened({ state: "none", code, message: reason(error) });
    };
    const open = async (): Promise<void> => {
      const { startedMs: started } = await get<{ startedMs: number }>(path);
      if (isOver) return;
      const received = (length: LogLength): void => setOpened({ state: "open", started, length });
      const retry = async (): Promise<boolean> => {
        const again = await get<{ startedMs: number }>(path);
        if (again.startedMs === started) return true;
        setRound((round) => round + 1);
        return false;
      };
      feed = new Feed(`${path}/length?started=${started}`, received, {
        retry,
        isLast: ({ state }) => state !== "open",
      });
    };
    open().catch(fail);
    return () => {
      isOver = true;
      feed?.close();
    };
  }, [path, round]);
  return [opened, () => setRound((round) => round + 1)];
}
