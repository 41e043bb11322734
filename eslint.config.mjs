// Rules for the scripts of the report's page. `make lint` runs them where npx is installed; users need neither.
const BROWSER = [
  "atob", "Blob", "DecompressionStream", "ResizeObserver", "Response", "addEventListener",
  "clearTimeout", "document", "getComputedStyle", "matchMedia", "performance", "requestAnimationFrame", "setTimeout", "window",
];
const MARKUP = ["innerHTML", "outerHTML", "insertAdjacentHTML", "write", "srcdoc"];

export default [
  {
    files: ["ensemble/report/assets/*.js"],
    languageOptions: {
      ecmaVersion: 2022,
      sourceType: "script",
      globals: Object.fromEntries([...BROWSER, "Medusa"].map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "eqeqeq": "error", "no-eval": "error", "no-implied-eval": "error", "no-new-func": "error", "no-shadow": "error",
      "no-undef": "error", "no-unused-vars": "error", "no-use-before-define": ["error", { functions: false, variables: false }],
      "no-var": "error", "prefer-const": "error", "strict": ["error", "global"], "max-lines": ["error", 500],
      // The text of a corpus never becomes markup.
      "no-restricted-properties": ["error", ...MARKUP.map((property) => ({ property }))],
    },
  },
];
