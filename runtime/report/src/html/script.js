// The page is complete without this: it folds, unfolds, and tells the time below the pointer.
"use strict";
(() => {
  const chart = document.querySelector(".chart");
  if (!chart) return;
  const buttons = document.querySelector(".buttons");
  buttons.hidden = false;
  buttons.addEventListener("click", (event) => {
    const unfold = event.target.dataset.unfold;
    if (unfold === undefined) return;
    for (const one of chart.querySelectorAll("details")) {
      one.open = unfold === "*" || (unfold !== "" && one.classList.contains(unfold));
    }
  });

  const pieces = chart.dataset.scale.split(";").map((piece) => piece.split(",").map(Number));
  const cursor = document.createElement("div");
  const words = document.createElement("span");
  cursor.className = "cursor";
  cursor.hidden = true;
  cursor.append(words);
  chart.append(cursor);
  const lane = chart.querySelector(".axis .lane");
  const ended = () => { cursor.hidden = true; };
  chart.addEventListener("pointerleave", ended);
  chart.addEventListener("pointermove", (event) => {
    const line = lane.getBoundingClientRect();
    const share = (event.clientX - line.left) / line.width * 100;
    const piece = pieces.find(([, , at, width]) => share >= at && share <= at + width);
    if (!piece) return ended();
    const [start, end, at, width] = piece;
    const time = new Date(start + (share - at) / width * (end - start));
    words.textContent = time.toISOString().slice(11, 23);
    cursor.style.left = `${event.clientX - chart.getBoundingClientRect().left}px`;
    cursor.classList.toggle("left", share > 85);
    cursor.hidden = false;
  });
})();
