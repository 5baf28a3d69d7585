/** How long requests wait for a server that is gone, unless the user says otherwise; nbd-client has no limit of its own. */
export const DEAD_TIMEOUT_SECONDS = 300;
