/** One deadline over name lookup, connect and the whole negotiation, of a device's connection and of a question alike. */
export const CONNECT_LIMIT_MS = 10_000;
