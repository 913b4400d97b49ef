// The table: a line for each asset, a click on a heading sorts; only the lines on the screen are in the page.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, F = S.filter, T = S.tiles, R = S.review;
  var HEIGHT = 52, OVERSCAN = 600;
  var table = S.parts.table = {};
  var body = null, names = [], drawn = [0, 0];

  table.show = function (view) {
    var top = view.scrollTop, left = view.scrollLeft;
    var differ = F.varying.filter(function (name) { return name !== "prompt"; });
    names = ["id", "n", "status", "verdict"].concat(differ, ["seed", "note", "prompt"]).filter(function (name) {
      return name === "n" || D.plain.has(name) || D.columns.has(name);
    });
    var head = S.el("tr", {}, [S.el("th", { scope: "col" }, [S.el("span", { class: "unseen", text: "picture" })])].concat(names.map(heading)));
    body = S.el("tbody");
    S.clear(view).append(S.el("table", { class: "rows", "aria-label": "Assets", "aria-rowcount": F.shown.length + 1 }, [
      S.el("thead", {}, [head]), body]));
    drawn = [-1, -1];
    draw(view);
    view.scrollTop = top;
    view.scrollLeft = left;
    draw(view);
  };

  function heading(name) {
    var isUp = S.view.sort === name, isDown = S.view.sort === "-" + name;
    var button = S.el("button", { type: "button", text: (name === "n" ? "take" : S.label(name)) + (isUp ? " \u2191" : isDown ? " \u2193" : ""),
      onclick: function () { S.view.sort = isUp ? "-" + name : isDown ? "" : name; S.changed(); } });
    return S.el("th", { scope: "col", "aria-sort": isUp ? "ascending" : isDown ? "descending" : "none" }, [button]);
  }

  function draw(view) {
    var first = Math.max(0, Math.floor((view.scrollTop - OVERSCAN) / HEIGHT));
    var last = Math.min(F.shown.length, Math.ceil((view.scrollTop + view.clientHeight + OVERSCAN) / HEIGHT));
    if (first === drawn[0] && last === drawn[1]) return;
    drawn = [first, last];
    var hasFocus = body.contains(document.activeElement);
    S.clear(body).append(spacer(first * HEIGHT));
    for (var place = first; place < last; place += 1) body.append(line(place));
    body.append(spacer((F.shown.length - last) * HEIGHT));
    if (hasFocus && S.focused !== null) focusLine(S.focused);
  }

  function spacer(pixels) {
    var cell = S.el("td", { colspan: names.length + 1 });
    var row = S.el("tr", { class: "spacer", "aria-hidden": "true" }, [cell]);
    cell.style.height = pixels + "px";
    row.hidden = !pixels;
    return row;
  }

  function line(place) {
    var row = F.shown[place];
    var open = S.el("button", { type: "button", class: "open", "aria-label": "open " + D.name(row) }, [T.picture(row)]);
    var element = S.el("tr", { "aria-rowindex": place + 2 }, [S.el("td", { class: "small" }, [open])]);
    element.row = open.row = row;
    names.forEach(function (name) {
      var kind = name.slice(0, 2) === "x_" ? "own" : name, text = textOf(row, name);
      element.append(S.el("td", { class: "c-" + kind, dir: "auto", text: text, title: text }));
    });
    return element;
  }

  function textOf(row, name) {
    if (name === "n") return D.n(row) < 0 ? "" : String(D.n(row));
    if (name === "verdict") return R.verdict(row);
    if (name === "note") return R.note(row);
    return D.text(row, name);
  }

  table.scrolled = function (view) { draw(view); };

  table.refresh = function () { drawn = [-1, -1]; draw(S.byId("view")); };

  table.order = function () { return F.shown; };

  function focusLine(row) {
    body.querySelectorAll("button.open").forEach(function (button) { if (button.row === row) button.focus({ preventScroll: true }); });
  }

  table.focus = function (row) {
    var place = F.shown.indexOf(row), view = S.byId("view");
    if (place < 0) return;
    S.focused = row;
    if (place * HEIGHT < view.scrollTop) view.scrollTop = place * HEIGHT;
    if ((place + 2) * HEIGHT > view.scrollTop + view.clientHeight) view.scrollTop = (place + 2) * HEIGHT - view.clientHeight;
    draw(view);
    focusLine(row);
  };

  table.step = function (key) {
    var place = F.shown.indexOf(S.focused);
    if (key === "ArrowDown") place += 1;
    else if (key === "ArrowUp") place -= 1;
    else if (key === "Home") place = 0;
    else if (key === "End") place = F.shown.length - 1;
    else return null;
    return place >= 0 && place < F.shown.length ? F.shown[place] : null;
  };
})();
