"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  let picked = [];

  // An element's text has its id, its box has "b-" before it.
  function pick(id, show) {
    for (const node of picked) node.classList.remove("on");
    const text = find(id);
    const box = find("b-" + id);
    picked = [text, box].filter((node) => node && node.matches(".el, .box"));
    for (const node of picked) node.classList.add("on");
    const shown = show === "box" ? box : text;
    if (shown && picked.includes(shown)) {
      shown.scrollIntoView({ block: show === "box" ? "nearest" : "center" });
      shown.focus({ preventScroll: true });
    }
    return picked.length > 0;
  }

  function choose(id, show) {
    if (pick(id, show)) history.replaceState(null, "", "#" + encodeURIComponent(id));
  }

  function fromHash() {
    let id = location.hash.slice(1);
    try {
      id = decodeURIComponent(id);
    } catch {
      // A hash that is not an encoded id is taken as it stands.
    }
    pick(id.startsWith("b-") ? id.slice(2) : id, "text");
  }

  document.addEventListener("click", (event) => {
    const box = event.target.closest(".box");
    if (box) {
      event.preventDefault();
      choose(box.id.slice(2), "text");
      return;
    }
    const text = event.target.closest(".el");
    // Marking words with the mouse is no click.
    if (text && !event.target.closest("a") && String(getSelection()) === "") {
      choose(text.id, "box");
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") pick("", "text");
    if (event.key !== "Enter" && event.key !== " ") return;
    if (event.target.matches(".el")) {
      event.preventDefault();
      choose(event.target.id, "box");
    } else if (event.target.matches(".box")) {
      event.preventDefault();
      choose(event.target.id.slice(2), "text");
    }
  });

  const hidden = find("hidden");
  find("legend").addEventListener("change", () => {
    const off = [...document.querySelectorAll("#legend input:not(:checked)")];
    hidden.textContent = off
      .map((input) => `.box.${input.value}, .el.${input.value} { display: none }`)
      .join("\n");
  });

  const links = new Map(
    [...document.querySelectorAll("#pages a")].map((link) => [link.hash.slice(1), link]),
  );
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const link = links.get(entry.target.id);
        if (!link || !entry.isIntersecting) continue;
        for (const other of links.values()) other.removeAttribute("aria-current");
        link.setAttribute("aria-current", "true");
        const bar = link.parentElement;
        bar.scrollTop = link.offsetTop - bar.offsetTop - link.offsetHeight;
        bar.scrollLeft = link.offsetLeft - bar.offsetLeft - bar.clientWidth / 2;
      }
    },
    { rootMargin: "-45% 0px -50% 0px" },
  );
  for (const page of document.querySelectorAll(".page")) seen.observe(page);

  // The bar's height depends on the pages in it; what is jumped to must not hide under it.
  new ResizeObserver(([bar]) => {
    const high = bar.target.offsetHeight + 12;
    document.documentElement.style.scrollPaddingTop = high + "px";
  }).observe(find("bar"));

  addEventListener("hashchange", fromHash);
  if (location.hash) fromHash();
})();
