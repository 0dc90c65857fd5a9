import { render } from "preact";
import { App } from "./App";
import { enter } from "./session";
import "./styles/base.css";
import "./styles/ui.css";
import "./styles/jobs.css";
import "./styles/log.css";
import "./styles/colors.css";
import "./styles/details.css";
import "./styles/run.css";
import "./styles/terminal.css";
import "./styles/files.css";
import "./styles/stats.css";
import "./styles/fleet.css";

const page = document.getElementById("page");
if (page) {
  render(<App />, page);
  void enter();
}
addEventListener("hashchange", () => {
  // A new link of the terminal in a tab that is open.
  if (location.hash.includes("token=")) void enter();
});
