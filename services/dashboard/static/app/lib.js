// The one place that names the vendored library. Everything is made of text nodes: nothing here or elsewhere parses
// markup out of a string, and the page's policy (trusted-types 'none') would refuse it.
export {
  html, render, createContext, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback,
} from "/static/vendor/htm-preact.js";
