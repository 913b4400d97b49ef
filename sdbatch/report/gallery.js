// Filters the cards by what the page's address says after '#', so that a filtered view can be sent as a link.
(function () {
  "use strict";
  var cards = Array.prototype.slice.call(document.querySelectorAll(".card"));
  var controls = Array.prototype.slice.call(document.querySelectorAll("[data-filter]"));
  var shown = document.getElementById("shown");

  function wanted() {
    var parameters = new URLSearchParams(location.hash.slice(1));
    var values = {};
    controls.forEach(function (control) {
      values[control.dataset.filter] = parameters.get(control.dataset.filter) || "";
    });
    return values;
  }

  function matches(card, values) {
    return Object.keys(values).every(function (name) {
      if (!values[name]) return true;
      if (name === "text") return card.dataset.text.toLowerCase().indexOf(values[name].toLowerCase()) >= 0;
      return card.dataset[name] === values[name];
    });
  }

  function apply() {
    var values = wanted();
    var count = 0;
    controls.forEach(function (control) { control.value = values[control.dataset.filter]; });
    cards.forEach(function (card) {
      card.hidden = !matches(card, values);
      if (!card.hidden) count += 1;
    });
    shown.textContent = count + " of " + cards.length;
  }

  controls.forEach(function (control) {
    control.addEventListener("input", function () {
      var parameters = new URLSearchParams();
      controls.forEach(function (other) { if (other.value) parameters.set(other.dataset.filter, other.value); });
      history.replaceState(null, "", "#" + parameters.toString());
      apply();
    });
  });
  window.addEventListener("hashchange", apply);
  apply();
})();
