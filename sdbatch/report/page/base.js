// What every part of the page uses: elements made from text alone, the state in the address, and sorting.
(function () {
  "use strict";
  var S = window.sdbatch = { parts: {} };

  // Strangers wrote prompts and values: they become text nodes and properties, never HTML.
  S.el = function (tag, properties, children) {
    var element = document.createElement(tag);
    Object.keys(properties || {}).forEach(function (name) {
      var value = properties[name];
      if (value === null || value === undefined || value === false) return;
      if (name.slice(0, 2) === "on") element.addEventListener(name.slice(2), value);
      else if (name === "text") element.textContent = value;
      else if (name === "class") element.className = value;
      else element.setAttribute(name, value === true ? "" : String(value));
    });
    [].concat(children || []).forEach(function (child) {
      if (child !== null && child !== undefined) element.append(child);
    });
    return element;
  };

  S.byId = function (id) { return document.getElementById(id); };

  S.clear = function (element) { element.replaceChildren(); return element; };

  var collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  S.compare = collator.compare;

  S.label = function (name) {
    return (name.slice(0, 2) === "x_" ? name.slice(2) : name).replace(/_/g, " ");
  };

  // Beside a text that is written from right to left, `512 x 768` would be read as part of it, from right to left too.
  var LEFTWARD = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
  S.isolated = function (text) { return LEFTWARD.test(text) ? "\u2068" + text + "\u2069" : text; };

  S.valueLabel = function (value) { return value === "" ? "(none)" : value; };

  S.number = function (value) { return value.toLocaleString("en-US"); };

  S.duration = function (seconds) {
    var whole = Math.round(seconds);
    if (whole < 60) return whole + " s";
    if (whole < 3600) return Math.floor(whole / 60) + " min " + (whole % 60) + " s";
    return Math.floor(whole / 3600) + " h " + Math.floor((whole % 3600) / 60) + " min";
  };

  // --- the state of the view, which stands in the address so that it can be sent as a link ---------------------------

  var DEFAULTS = { view: "sheet", q: "", sort: "", h: "176", stack: "", rows: "", cols: "", open: "" };

  S.read = function () {
    var parameters = new URLSearchParams(location.hash.slice(1));
    var view = { facets: new Map() };
    Object.keys(DEFAULTS).forEach(function (name) { view[name] = parameters.get(name) || DEFAULTS[name]; });
    parameters.forEach(function (value, name) {
      if (name.slice(0, 2) !== "f.") return;
      var facet = name.slice(2);
      if (!view.facets.has(facet)) view.facets.set(facet, new Set());
      view.facets.get(facet).add(value);
    });
    if (["sheet", "matrix", "table"].indexOf(view.view) < 0) view.view = "sheet";
    view.h = Math.min(320, Math.max(64, Number(view.h) || 176));
    return view;
  };

  S.write = function () {
    var view = S.view;
    var parameters = new URLSearchParams();
    Object.keys(DEFAULTS).forEach(function (name) {
      if (String(view[name]) !== DEFAULTS[name]) parameters.set(name, view[name]);
    });
    view.facets.forEach(function (values, name) {
      values.forEach(function (value) { parameters.append("f." + name, value); });
    });
    var text = parameters.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  };

  S.view = S.read();
})();
