// Amounts: integers of minor units, as text with a currency's decimal digits. Those beyond 2^53 are BigInts.

let digitsOf = new Map();

/** Learn the currencies, as the API lists them. */
export function learn(currencies) {
  digitsOf = new Map(currencies.map(({ code, digits }) => [code, digits]));
}

/** Return an amount as text: 123456 EUR is "1,234.56". Without a currency that is known, it is left in minor units. */
export function format(amount, currency) {
  const digits = digitsOf.get(currency);
  const number = BigInt(amount);
  const sign = number < 0n ? "−" : "";
  const text = String(number < 0n ? -number : number).padStart((digits ?? 0) + 1, "0");
  const whole = digits ? text.slice(0, -digits) : text;
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return sign + (digits ? `${grouped}.${text.slice(-digits)}` : grouped);
}

/** Return an amount with its currency. */
export function money(amount, currency) {
  return currency ? `${format(amount, currency)} ${currency}` : `${format(amount, currency)} minor units`;
}

/** Return an amount as a number in units of its currency, for plots only. */
export function inUnits(amount, currency) {
  return Number(amount) / 10 ** (digitsOf.get(currency) ?? 0);
}
