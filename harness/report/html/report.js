// Sorting, filtering and copying. Without this script all rows stand in the page, in their order.
// A state has an address: #cases?sort=floor&order=descending&mechanism=flow/fused&find=4K
"use strict";
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true });
  const tables = new Map();
  const CHOICES_MAX = 20;

  const element = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  class Table {
    constructor(table) {
      this.table = table;
      this.body = table.tBodies[0];
      this.rows = Array.from(this.body.rows);
      this.heads = Array.from(table.tHead.rows[0].cells);
      this.sorting = { key: "", order: "" };
      this.chosen = new Map();
      this.find = "";
      this.keys = this.heads.map((head) => head.dataset.key || "");
      if (table.classList.contains("sort")) this.addButtons();
      if (table.classList.contains("filter") && this.rows.length > 5) this.addControls();
    }

    // ---- sorting ----
    addButtons() {
      this.heads.forEach((head) => {
        const key = head.dataset.key;
        if (!key) return;
        const button = element("button", { type: "button" }, ...head.childNodes);
        button.addEventListener("click", () => {
          const ascending = this.sorting.key === key && this.sorting.order === "ascending";
          this.sort(key, ascending ? "descending" : "ascending");
          this.remember();
        });
        head.append(button);
      });
    }

    sort(key, order) {
      const column = this.keys.indexOf(key);
      if (column < 0) return;
      const numeric = this.heads[column].classList.contains("n");
      const sign = order === "descending" ? -1 : 1;
      const keyed = this.rows.map((row) => {
        const cell = row.cells[column];
        if (!numeric) return { row, value: cell.textContent };
        const value = parseFloat(cell.dataset.v ?? cell.textContent);
        return { row, value: Number.isNaN(value) ? null : value };
      });
      // What has no value comes last in both directions.
      keyed.sort((a, b) => {
        if (!numeric) return sign * collator.compare(a.value, b.value);
        if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
        return sign * (a.value - b.value);
      });
      this.rows = keyed.map((entry) => entry.row);
      this.body.append(...this.rows);
      this.heads.forEach((head, at) => {
        if (at === column) head.setAttribute("aria-sort", order);
        else head.removeAttribute("aria-sort");
      });
      this.sorting = { key, order };
    }

    // ---- filtering ----
    addControls() {
      const id = this.table.id;
      this.output = element("output", { "aria-live": "polite" });
      this.input = element("input", { type: "search", id: `${id}-find`, autocomplete: "off" });
      this.input.addEventListener("input", () => {
        this.find = this.input.value;
        this.filter();
        this.remember();
      });
      const bar = element("div", { class: "controls", role: "search",
        "aria-label": `Filter: ${this.table.caption.textContent.split(/[.;:]/)[0]}` });
      bar.append(element("label", {}, "find", this.input));
      this.selects = new Map();
      if (id === "cases") this.heads.forEach((head, at) => this.addChoice(bar, head, at));
      const reset = element("button", { type: "button" }, "show all");
      reset.addEventListener("click", () => {
        this.set("", new Map());
        this.remember();
      });
      bar.append(reset, this.output);
      this.table.closest(".box").before(bar);
      this.filter();
    }

    addChoice(bar, head, at) {
      const key = this.keys[at];
      if (!key || (head.classList.contains("n") && key !== "n")) return;
      const values = new Set(this.rows.map((row) => row.cells[at].textContent));
      if (values.size < 2 || values.size > CHOICES_MAX || key === "reason" || key === "parameters") return;
      const select = element("select", {}, element("option", { value: "" }, "all"));
      for (const value of Array.from(values).sort(this.orderOf(at))) {
        select.append(element("option", { value }, value || "none"));
      }
      select.addEventListener("change", () => {
        if (select.selectedIndex > 0) this.chosen.set(key, select.value);
        else this.chosen.delete(key);
        this.filter();
        this.remember();
      });
      this.selects.set(key, select);
      bar.append(element("label", {}, head.textContent, select));
    }

    // Sizes sort by their value, not by their text: 512 before 1K.
    orderOf(at) {
      if (!this.heads[at].classList.contains("n")) return collator.compare;
      const sizes = new Map(this.rows.map((row) =>
        [row.cells[at].textContent, parseFloat(row.cells[at].dataset.v)]));
      return (a, b) => sizes.get(a) - sizes.get(b);
    }

    filter() {
      const words = this.find.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = Array.from(this.chosen, ([key, value]) => [this.keys.indexOf(key), value]);
      let shown = 0;
      for (const row of this.rows) {
        let keep = wanted.every(([at, value]) => row.cells[at].textContent === value);
        if (keep && words.length > 0) {
          const text = Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase();
          keep = words.every((word) => text.includes(word));
        }
        row.classList.toggle("off", !keep);
        shown += keep;
      }
      this.output.textContent = `${shown} of ${this.rows.length} rows`;
    }

    set(find, chosen) {
      if (!this.output) return;
      this.find = find;
      this.input.value = find;
      this.chosen = new Map();
      for (const [key, select] of this.selects) {
        select.value = chosen.get(key) ?? "";
        if (chosen.has(key) && select.selectedIndex > 0) this.chosen.set(key, chosen.get(key));
      }
      this.filter();
    }

    // ---- addresses ----
    remember() {
      const parameters = new URLSearchParams();
      if (this.sorting.key) {
        parameters.set("sort", this.sorting.key);
        parameters.set("order", this.sorting.order);
      }
      for (const [key, value] of this.chosen) parameters.set(key, value);
      if (this.find) parameters.set("find", this.find);
      const text = parameters.toString();
      history.replaceState(null, "", `#${this.table.id}${text ? "?" + text : ""}`);
    }
  }

  const recall = () => {
    const table = tables.get(location.hash.slice(1).split("?")[0]);
    const at = location.hash.indexOf("?");
    if (!table || at < 0) return;
    const parameters = new Map(new URLSearchParams(location.hash.slice(at + 1)));
    table.set(parameters.get("find") ?? "", parameters);
    if (parameters.has("sort")) {
      table.sort(parameters.get("sort"),
        parameters.get("order") === "descending" ? "descending" : "ascending");
    }
    table.table.closest("section").scrollIntoView();
  };

  // ---- copying ----
  const copy = async (text, button) => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = document.execCommand("copy") ? "copied" : "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };
  for (const source of document.querySelectorAll("code.copy, pre.copy > code")) {
    const button = element("button", { type: "button", class: "copy" }, "copy");
    const row = source.closest("tr");
    if (row) button.setAttribute("aria-label", `copy the command for ${row.cells[0].textContent}, ` +
      `row ${source.textContent.split(":").pop()}`);
    button.source = source;
    button.addEventListener("click", () => copy(source.textContent, button));
    source.after(button);
  }

  // What is folded on the screen is open on paper.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });

  for (const table of document.querySelectorAll("table.sort, table.filter")) {
    tables.set(table.id, new Table(table));
  }
  addEventListener("hashchange", recall);
  recall();
})();
