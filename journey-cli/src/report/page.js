"use strict";
const list = document.getElementById("list");
const needle = document.getElementById("needle");
const order = document.getElementById("order");
const preempted = document.getElementById("preempted");
const shown = document.getElementById("shown");
const rows = Array.from(list.children, (row) => ({
  row,
  text: (row.querySelector("summary").textContent + " " + row.querySelector(".id.dim").textContent).toLowerCase(),
}));

function filter() {
  const wanted = needle.value.trim().toLowerCase();
  let count = 0;
  for (const { row, text } of rows) {
    row.hidden = !text.includes(wanted) || (preempted.checked && row.dataset.preemptions === "0");
    count += row.hidden ? 0 : 1;
  }
  shown.textContent = count + " shown";
}

function sort() {
  const by = order.value;
  const key = (row) => (by === "arrival" ? Number(row.dataset.index) : -Number(row.dataset[by]));
  list.append(...rows.map(({ row }) => row).sort((a, b) => key(a) - key(b)));
}

document.getElementById("filters").hidden = false;
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
needle.addEventListener("input", filter);
preempted.addEventListener("change", filter);
order.addEventListener("change", sort);
filter();
