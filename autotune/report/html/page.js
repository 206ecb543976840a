"use strict";
/* Draws the figures, keeps their colours with the page's, makes tabs of the exports and gives text a copy button. */
(() => {
  const touch = window.matchMedia("(hover: none)").matches;
  const plots = [...document.querySelectorAll("[data-plot]")];
  const PRINTED_WIDTH = 660;

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    return {
      "font.color": value("--text"),
      "hoverlabel.bgcolor": value("--paper"),
      "hoverlabel.bordercolor": value("--line"),
      "hoverlabel.font.color": value("--text"),
    };
  }

  function draw(element) {
    const { data, layout } = JSON.parse(document.getElementById("plot-" + element.dataset.plot).textContent);
    layout.showlegend = false; // the page has it, in HTML
    const config = {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch ? false : "hover",
      doubleClick: "reset",
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
      toImageButtonOptions: { format: "svg", filename: element.dataset.plot },
    };
    return Plotly.newPlot(element, data, layout, config).then(() => Plotly.relayout(element, colours()));
  }

  const recolour = () => plots.forEach((element) => Plotly.relayout(element, colours()));
  const onPaper = {
    "font.color": "#111111", "hoverlabel.bgcolor": "#ffffff", "hoverlabel.font.color": "#111111",
    autosize: false, width: PRINTED_WIDTH,
  };

  function copyButton(block) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        const selection = window.getSelection();
        selection.selectAllChildren(code);
        document.execCommand("copy");
        selection.removeAllRanges();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }

  function tabs(container) {
    const panels = [...container.querySelectorAll(":scope > details")];
    if (panels.length < 2) return;
    const list = document.createElement("div");
    list.className = "tablist";
    list.setAttribute("role", "tablist");
    const buttons = panels.map((panel, place) => {
      const button = document.createElement("button");
      panel.id = panel.id || "export-" + place;
      panel.setAttribute("role", "tabpanel");
      button.type = "button";
      button.textContent = panel.querySelector("summary").textContent;
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", panel.id);
      button.addEventListener("click", () => choose(place));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) choose((place + step + panels.length) % panels.length, true);
      });
      return button;
    });
    function choose(chosen, focus) {
      panels.forEach((panel, place) => { panel.open = place === chosen; });
      buttons.forEach((button, place) => {
        button.setAttribute("aria-selected", String(place === chosen));
        button.tabIndex = place === chosen ? 0 : -1;
      });
      if (focus) buttons[chosen].focus();
    }
    list.append(...buttons);
    container.prepend(list);
    container.classList.add("tabs");
    choose(0);
  }

  document.querySelectorAll(".copy").forEach(copyButton);
  document.querySelectorAll(".exports").forEach(tabs);
  Promise.all(plots.map(draw)).then(() => document.documentElement.setAttribute("data-drawn", String(plots.length)));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  window.addEventListener("beforeprint", () => plots.forEach((element) => Plotly.relayout(element, onPaper)));
  window.addEventListener("afterprint", () =>
    plots.forEach((element) => Plotly.relayout(element, { ...colours(), autosize: true, width: null })));
})();
