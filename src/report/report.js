"use strict";
// Makes every table with more than one row sortable and wakes the controls that choose among samples, by mouse and by
// keyboard. Without this script the report says the same and shows every sample; nothing else is done here.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 2) continue;
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort((a, b) => compare(a[0], b[0], ascending ? 1 : -1));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
for (const filter of document.querySelectorAll(".filter")) {
  const list = document.getElementById(filter.dataset.list);
  if (!list) continue;
  const samples = [...list.querySelectorAll("li")].map((item) => ({ item, text: item.textContent.toLowerCase() }));
  const groups = [...list.querySelectorAll("details")].map((group) => ({ group, open: group.open }));
  const wanted = filter.querySelector("input");
  const selects = [...filter.querySelectorAll("select")];
  const count = filter.querySelector("[role=status]");
  const update = () => {
    const text = wanted.value.trim().toLowerCase();
    const chosen = selects.filter((select) => select.value !== "");
    let shown = 0;
    for (const sample of samples) {
      const fits = sample.text.includes(text)
        && chosen.every((select) => sample.item.dataset[select.dataset.key] === select.value);
      sample.item.hidden = !fits;
      shown += fits;
    }
    const active = text !== "" || chosen.length > 0;
    for (const { group, open } of groups) {
      const some = group.querySelector("li:not([hidden])") !== null;
      group.hidden = !some;
      group.open = active ? some : open;
    }
    const total = `${samples.length} ${filter.dataset.noun}s`;
    count.textContent = active ? `${shown} of ${total}` : total;
  };
  filter.addEventListener("input", update);
  filter.querySelector("button").addEventListener("click", () => {
    wanted.value = "";
    selects.forEach((select) => { select.value = ""; });
    update();
    wanted.focus();
  });
  filter.hidden = false;
}
