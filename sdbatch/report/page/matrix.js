// The matrix: one column's values are the lines, another's the columns; headings stay while it is scrolled.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, F = S.filter, T = S.tiles;
  var COLUMNS_MAX = 60, OVERSCAN = 600, SHOWN_MAX = 4;
  var matrix = S.parts.matrix = {};
  var cells = new Map(), rowValues = [], columnValues = [], body = null, height = 0, drawn = [0, 0];

  // Columns that may be lines or columns: those that differ, with few enough values to look at.
  matrix.choices = function () {
    var sizes = new Map();
    return F.own.concat(["size", "model", "task", "run", "prompt"], F.settings).filter(function (name) {
      var column = D.columns.get(name);
      return column && F.varying.concat(["run"]).indexOf(name) >= 0 && column.values.length > 1 && column.values.length <= 5000;
    }).map(function (name) { sizes.set(name, D.columns.get(name).values.length); return name; }).concat(["n"]);
  };

  function defaults() {
    var choices = matrix.choices();
    var rows = choices.indexOf(S.view.rows) >= 0 ? S.view.rows : choices[0];
    var rest = choices.filter(function (name) { return name !== rows; });
    return [rows, choices.indexOf(S.view.cols) >= 0 && S.view.cols !== rows ? S.view.cols : rest[0] || "n"];
  }

  function valueOf(row, name) { return name === "n" ? String(Math.max(0, D.n(row))) : D.text(row, name); }

  function fillSelect(id, chosen, other) {
    var select = S.clear(S.byId(id));
    matrix.choices().filter(function (name) { return name !== other; }).forEach(function (name) {
      var option = S.el("option", { value: name, text: name === "n" ? "take" : S.label(name) });
      select.append(option);
    });
    select.value = chosen;
  }

  matrix.show = function (view) {
    var chosen = defaults(), top = view.scrollTop, left = view.scrollLeft;
    fillSelect("rows", chosen[0], "");
    fillSelect("columns", chosen[1], chosen[0]);
    cells = new Map();
    var rows = new Set(), columns = new Set();
    F.shown.forEach(function (row) {
      var key = valueOf(row, chosen[0]), across = valueOf(row, chosen[1]);
      rows.add(key);
      columns.add(across);
      if (!cells.has(key)) cells.set(key, new Map());
      var line = cells.get(key);
      if (!line.has(across)) line.set(across, []);
      line.get(across).push(row);
    });
    rowValues = Array.from(rows).sort(S.compare);
    columnValues = Array.from(columns).sort(S.compare);
    var numLeftOut = Math.max(0, columnValues.length - COLUMNS_MAX);
    columnValues = columnValues.slice(0, COLUMNS_MAX);
    height = S.view.h + 14;
    var name = S.label(chosen[0]) + " by " + S.label(chosen[1]);
    var head = S.el("tr", {}, [S.el("th", { scope: "col", class: "corner", text: name })].concat(columnValues.map(function (value) {
      return S.el("th", { scope: "col", dir: "auto", text: S.valueLabel(value), title: value });
    })));
    body = S.el("tbody");
    var table = S.el("table", { class: "matrix", "aria-label": name, "aria-rowcount": rowValues.length + 1 }, [
      S.el("thead", {}, [head]), body]);
    S.clear(view);
    if (numLeftOut) view.append(S.el("p", { class: "told", text: numLeftOut + " more columns are left out; choose some by the filters" }));
    view.append(table);
    drawn = [-1, -1];
    draw(view);
    view.scrollTop = top;
    view.scrollLeft = left;
    draw(view);
  };

  function draw(view) {
    var first = Math.max(0, Math.floor((view.scrollTop - OVERSCAN) / height));
    var last = Math.min(rowValues.length, Math.ceil((view.scrollTop + view.clientHeight + OVERSCAN) / height));
    if (first === drawn[0] && last === drawn[1]) return;
    drawn = [first, last];
    var hasFocus = body.contains(document.activeElement);
    S.clear(body).append(spacer(first * height));
    for (var place = first; place < last; place += 1) body.append(line(place));
    body.append(spacer((rowValues.length - last) * height));
    if (hasFocus && S.focused !== null) matrix.focus(S.focused);
  }

  function spacer(pixels) {
    var cell = S.el("td", { colspan: columnValues.length + 1 });
    var row = S.el("tr", { class: "spacer", "aria-hidden": "true" }, [cell]);
    cell.style.height = pixels + "px";
    row.hidden = !pixels;
    return row;
  }

  function line(place) {
    var value = rowValues[place], row = S.el("tr", { "aria-rowindex": place + 2 });
    row.append(S.el("th", { scope: "row", dir: "auto", text: S.valueLabel(value), title: value }));
    columnValues.forEach(function (across) {
      var cell = S.el("td"), inside = (cells.get(value) || new Map()).get(across) || [];
      cell.style.height = height + "px";
      if (inside.length) cell.append(stack(inside));
      row.append(cell);
    });
    return row;
  }

  function stack(rows) {
    var shown = rows.slice(0, SHOWN_MAX);
    var box = S.el("div", { class: rows.length > 2 ? "cell four" : "cell", role: "listbox", "aria-label": rows.length + " assets" });
    var high = rows.length > 2 ? S.view.h / 2 - 2 : S.view.h;
    shown.forEach(function (row) {
      var tile = T.make(row, { caption: false });
      tile.firstChild.style.height = high + "px";
      tile.firstChild.style.width = Math.min(D.aspect(row), 2) * high + "px";
      tile.tabIndex = 0;
      tile.among = rows;
      box.append(tile);
    });
    if (rows.length > SHOWN_MAX) return S.el("div", { class: "more-cell" }, [box, S.el("span", { class: "faint", text: "+" + (rows.length - SHOWN_MAX) })]);
    return box;
  }

  matrix.scrolled = function (view) { draw(view); };

  matrix.refresh = function (row) {
    body.querySelectorAll(".tile").forEach(function (tile) { if (tile.row === row) T.refresh(tile); });
  };

  matrix.order = function () {
    var order = [];
    rowValues.forEach(function (value) {
      columnValues.forEach(function (across) {
        (cells.get(value).get(across) || []).forEach(function (row) { order.push(row); });
      });
    });
    return order;
  };

  matrix.focus = function (row) {
    S.focused = row;
    body.querySelectorAll(".tile").forEach(function (tile) {
      tile.setAttribute("aria-selected", String(tile.row === row));
      if (tile.row === row) tile.focus();
    });
  };

  matrix.step = function (key) {
    var tiles = Array.from(body.querySelectorAll(".tile"));
    var at = tiles.findIndex(function (tile) { return tile.row === S.focused; });
    if (at < 0) return tiles.length ? tiles[0].row : null;
    if (key === "ArrowLeft" || key === "ArrowRight") {
      var next = tiles[at + (key === "ArrowRight" ? 1 : -1)];
      return next ? next.row : null;
    }
    var here = tiles[at].getBoundingClientRect(), best = null, away = Infinity;
    tiles.forEach(function (tile) {
      var there = tile.getBoundingClientRect();
      var down = there.top - here.top;
      if (key === "ArrowDown" ? down < 8 : down > -8) return;
      var distance = Math.abs(down) + 3 * Math.abs(there.left - here.left);
      if (distance < away) { away = distance; best = tile.row; }
    });
    return best;
  };
})();
