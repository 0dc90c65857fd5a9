import { defineConfig, type Plugin } from "vite";

/**
 * The page's policy forbids inline styles. xterm.js makes <style> elements and writes "style"
 * attributes as markup. This has it make elements that adopt a style sheet, see
 * src/terminal/adopted.ts, and set the style by the object model, which the policy allows.
 */
function xtermStyles(): Plugin {
  const changes: [string, string, number][] = [
    ['createElement("style")', 'createElement("adopted-style")', 3],
    ['t.setAttribute("style",`${t.getAttribute("style")||""}${e};`)', "t.style.cssText+=`${e};`", 1],
  ];
  return {
    name: "xterm-styles",
    transform(code, id) {
      if (!id.includes("@xterm/xterm/lib/")) return null;
      for (const [from, to, times] of changes) {
        const parts = code.split(from);
        // Another version of xterm.js may do it in another way.
        if (parts.length !== times + 1) throw new Error(`${id} has ${from} ${parts.length - 1} times`);
        code = parts.join(to);
      }
      return { code, map: null };
    },
  };
}

export default defineConfig({
  base: "/assets/",
  plugins: [xtermStyles()],
  optimizeDeps: { exclude: ["@xterm/xterm"] },
  build: {
    outDir: "../assets",
    emptyOutDir: true,
    assetsDir: "",
    // The page's policy forbids data in addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
});
