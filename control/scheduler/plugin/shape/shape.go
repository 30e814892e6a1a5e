// Package shape gives scores by how full something is, as a KubeSchedulerConfiguration
// describes it.
package shape

// Point is a corner of a Shape: a utilisation in per cent and its score of 0 to
// scheduler.MaxScore.
type Point struct{ Utilization, Score int64 }

// Shape is a broken line by rising utilisation; it has at least one Point.
type Shape []Point

// full is the highest utilisation, in per cent.
const full = 100

// At is the score when so much of a total is used: what is over full, or has no total,
// counts as full. Between the corners the line is straight, before the first and after
// the last it is level.
func (s Shape) At(used, total int64) int64 {
	at := int64(full)
	if total != 0 && used <= total {
		at = used * full / total
	}
	for i, p := range s {
		if at > p.Utilization {
			continue
		}
		if i == 0 {
			return p.Score
		}
		before := s[i-1]
		return before.Score + (p.Score-before.Score)*(at-before.Utilization)/(p.Utilization-before.Utilization)
	}
	return s[len(s)-1].Score
}
