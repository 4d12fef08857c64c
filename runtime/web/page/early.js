// Not a module: where a script of the page is damaged or missing, app.js does not run, and this one says so.
addEventListener("error", ({ target, message, filename }) => {
  if (document.documentElement.dataset.state || (target !== window && target.tagName !== "SCRIPT")) return;
  const what = target === window ? `${new URL(filename).pathname} cannot run: ${message}.` : `${target.src}, or what it needs, cannot be loaded.`;
  document.documentElement.dataset.state = "failed";
  document.getElementById("loading").setAttribute("aria-busy", "false");
  document.getElementById("progress").hidden = true;
  document.getElementById("loading-title").textContent = "The page cannot start";
  for (const id of ["loading-text", "spoken"]) document.getElementById(id).textContent = `${what} Reload the page.`;
}, true);
