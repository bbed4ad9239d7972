//! Redis settings and connections with deadlines and a circuit breaker, for the redis features of overdrive.
