"use strict";
/* Every two seconds, while somebody looks: the page once more, its newer parts into their places, and how fast counters rise. */
(() => {
  const parts = ["summary", "plots", "clusters", "events", "cores", "listeners"];
  const address = new URL(location.href);
  /* The explain box is asked by its button alone. */
  const find = address.searchParams.get("find");
  address.search = find ? new URLSearchParams({ find }) : "";
  address.hash = "";
  const counts = (root) => {
    const found = new Map();
    for (const cell of root.querySelectorAll("[data-count]")) {
      found.set(cell.parentNode.dataset.key + " " + cell.dataset.label, [cell, Number(cell.dataset.count)]);
    }
    return found;
  };
  const beat = document.getElementById("beat");
  let before = counts(document);
  let then = performance.now();
  const refresh = async () => {
    const response = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (!response.ok) throw new Error(response.status);
    const newer = new DOMParser().parseFromString(await response.text(), "text/html");
    const now = performance.now();
    const latest = counts(newer);
    for (const [key, [cell, count]] of latest) {
      const was = before.get(key);
      if (!was || count <= was[1]) continue;
      const rate = (count - was[1]) * 1000 / (now - then);
      const span = newer.createElement("span");
      span.className = "rate";
      span.textContent = (rate < 10 ? rate.toFixed(1) : Math.round(rate)) + "/s";
      cell.append(span);
    }
    [before, then] = [latest, now];
    for (const id of parts) {
      const [mine, theirs] = [document.getElementById(id), newer.getElementById(id)];
      /* Whoever types must not lose the place. */
      if (mine && theirs && !mine.contains(document.activeElement)) mine.replaceWith(document.adoptNode(theirs));
    }
    beat.textContent = "Live: newer figures every two seconds.";
    beat.className = "";
  };
  const turn = async () => {
    if (!document.hidden) {
      try {
        await refresh();
      } catch (error) {
        beat.textContent = "No answer; these figures are of " + new Date(Date.now() - (performance.now() - then)).toLocaleTimeString() + ".";
        beat.className = "bad";
      }
    }
    setTimeout(turn, 2000);
  };
  setTimeout(turn, 1000);
})();
