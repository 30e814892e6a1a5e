// Package backoff says how long to wait before trying again.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Policy is a doubling delay between two bounds. The zero Policy never waits.
type Policy struct {
	// Min is the delay after the first failure, Max the longest one.
	Min, Max time.Duration
	// Jitter is the share of the delay that is random, 0 to 1: with 0.5 a delay
	// of 10 s becomes 5 to 10 s. It keeps many that failed together from coming
	// back together.
	Jitter float64
}

// After returns the delay after the given number of failures in a row, counted
// from 1. It never exceeds Max.
func (p Policy) After(failures int) time.Duration {
	if failures <= 0 || p.Min <= 0 {
		return 0
	}
	delay := p.Min
	for range failures - 1 {
		if delay >= p.Max/2 {
			delay = p.Max
			break
		}
		delay *= 2
	}
	if p.Jitter > 0 {
		// From the clock, so that whoever controls the clock knows the delay.
		dice := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(failures)))
		delay -= time.Duration(dice.Float64() * p.Jitter * float64(delay))
	}
	return delay
}
