/** How calls are repeated. All times are in milliseconds. */
export interface RetryPolicy {
  /** How often a call is sent at most; 1 never repeats it. */
  readonly maxAttempts: number;
  /** The longest pause before the first repetition; it doubles with each further one. */
  readonly baseDelayMs: number;
  /** The longest pause before any repetition, unless the service asks for a longer one. */
  readonly maxDelayMs: number;
  /** How many repetitions all calls of a client may make. */
  readonly budget: RetryBudgetOptions;
}

/**
 * A token bucket, from which each repetition takes a token. While it is empty, repetitions wait, so that a client whose
 * calls all fail does not multiply its calls to a service that is overloaded.
 */
export interface RetryBudgetOptions {
  /** How many tokens it holds at most, and at first. */
  readonly burst: number;
  /** How many tokens it gets in a second. */
  readonly perSecond: number;
  /** How many tokens it gets for each call that succeeds. */
  readonly perSuccess: number;
}

export const DEFAULT_RETRY_POLICY: RetryPolicy = {
  maxAttempts: Number.POSITIVE_INFINITY,
  baseDelayMs: 100,
  maxDelayMs: 2_000,
  budget: { burst: 100, perSecond: 20, perSuccess: 0.2 },
};

/** Return a pause between 0 and a limit that doubles with each attempt ("full jitter"). */
export function fullJitter(attempt: number, policy: RetryPolicy): number {
  return Math.random() * Math.min(policy.maxDelayMs, policy.baseDelayMs * 2 ** (attempt - 1));
}

/** The tokens of one client. */
export class RetryBudget {
  readonly #options: RetryBudgetOptions;
  readonly #now: () => number;
  #tokens: number;
  #countedAt: number;

  /** @param now - Returns a time that never goes back, in milliseconds. */
  constructor(options: RetryBudgetOptions, now: () => number = () => performance.now()) {
    this.#options = options;
    this.#now = now;
    this.#tokens = options.burst;
    this.#countedAt = now();
  }

  /** Count a call that succeeded. */
  succeeded(): void {
    this.#add(this.#options.perSuccess);
  }

  /** Return in how many milliseconds there will be a token for one more repetition. */
  wait(): number {
    this.#add(0);
    return this.#tokens >= 1 ? 0 : ((1 - this.#tokens) / this.#options.perSecond) * 1000;
  }

  /** Take a token, perhaps one that there will only be after `wait()`. */
  take(): void {
    this.#tokens -= 1;
  }

  #add(tokens: number): void {
    const now = this.#now();
    const refilled = ((now - this.#countedAt) / 1000) * this.#options.perSecond;
    this.#tokens = Math.min(this.#options.burst, this.#tokens + refilled + tokens);
    this.#countedAt = now;
  }
}
