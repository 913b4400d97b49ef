// The list of facets beside the pictures, with how many rows each value would leave, and the line of what is the same.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, F = S.filter;
  var FIRST_VALUES = 10;
  var built = "";
  var inputs = new Map();
  var P = S.facets = {};

  P.show = function () {
    var layout = JSON.stringify(F.facets.map(function (name) { return [name, valuesOf(name).length]; }));
    if (layout !== built) { build(); built = layout; }
    inputs.forEach(function (values, name) {
      var column = D.columns.get(name), counts = F.counts.get(name) || [];
      var head = F.isPart && !S.view.facets.size && !S.view.q ? headOf(name) : null;
      values.forEach(function (parts, value) {
        var num = head ? F.totalOf(head, value) : counts[column.index.get(value)] || 0;
        var isChosen = S.view.facets.has(name) && S.view.facets.get(name).has(value);
        parts.count.textContent = S.number(num);
        parts.box.checked = isChosen;
        parts.label.classList.toggle("none", !num && !isChosen);
      });
    });
    S.byId("clear-facets").hidden = !S.view.facets.size && !S.view.q;
    S.byId("apply-facets").hidden = !F.numLeaving;
    S.byId("apply-facets").textContent = "Apply filters again (" + S.number(F.numLeaving) + " decided meanwhile)";
  };

  function headOf(name) {
    if (name === "verdict") return null;
    return D.head.facets.find(function (facet) { return facet.name === name; }) || null;
  }

  function valuesOf(name) {
    if (name === "verdict") return ["open", "approved", "picked", "rejected"];
    var head = F.isPart && headOf(name);
    var column = D.columns.get(name);
    var used = new Set();
    if (head) head.values.forEach(function (value) { used.add(value); });
    else column.codes.forEach(function (code, row) { if (!D.dead[row]) used.add(column.values[code]); });
    return Array.from(used).sort(S.compare);
  }

  function build() {
    var aside = S.clear(S.byId("facets"));
    inputs = new Map();
    aside.append(S.el("button", { type: "button", id: "clear-facets", text: "Clear filters", onclick: clearAll, hidden: true }),
      S.el("button", { type: "button", id: "apply-facets", onclick: applyAgain, hidden: true }));
    F.facets.forEach(function (name) {
      var values = valuesOf(name);
      var parts = new Map();
      inputs.set(name, parts);
      var items = values.map(function (value) { return item(name, value, parts); });
      var field = S.el("fieldset", {}, [S.el("legend", { text: S.label(name) })].concat(items.slice(0, FIRST_VALUES)));
      if (items.length > FIRST_VALUES) {
        field.append(S.el("details", {}, [S.el("summary", { text: (items.length - FIRST_VALUES) + " more" })]
          .concat(items.slice(FIRST_VALUES))));
      }
      aside.append(field);
    });
  }

  function item(name, value, parts) {
    var box = S.el("input", { type: "checkbox", onchange: function () { choose(name, value, box.checked); } });
    var count = S.el("span", { class: "count" });
    var label = S.el("label", {}, [box, S.el("span", { class: "value", dir: "auto", text: S.valueLabel(value), title: value }), count]);
    parts.set(value, { box: box, count: count, label: label });
    return label;
  }

  function choose(name, value, isChosen) {
    if (!S.view.facets.has(name)) S.view.facets.set(name, new Set());
    var values = S.view.facets.get(name);
    if (isChosen) values.add(value);
    else values.delete(value);
    if (!values.size) S.view.facets.delete(name);
    S.changed();
  }

  function clearAll() {
    S.view.facets.clear();
    S.view.q = "";
    S.byId("search").value = "";
    S.changed();
    S.byId("view").focus();
  }
  P.clear = clearAll;

  function applyAgain() {
    S.changed();
    S.byId("view").focus();
  }

  P.showSame = function () {
    var line = S.clear(S.byId("constants"));
    line.hidden = !F.same.length;
    if (line.hidden) return;
    line.append(S.el("span", { class: "faint", text: "The same everywhere: " }));
    F.same.forEach(function (pair, place) {
      line.append(S.el("span", { class: "same" }, [
        (place ? " · " : ""), S.el("span", { class: "faint", text: S.label(pair[0]) + " " }), S.el("span", { text: pair[1] })
      ]));
    });
  };
})();
