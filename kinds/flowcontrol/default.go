package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

// What upstream fills in.
const (
	defaultPrecedence  = 1000
	defaultShares      = 30
	defaultQueues      = 64
	defaultHandSize    = 8
	defaultQueueLength = 50
)

func defaultSchema(s *flowcontrolv1.FlowSchema) {
	setZero(&s.Spec.MatchingPrecedence, defaultPrecedence)
}

func defaultLevel(l *flowcontrolv1.PriorityLevelConfiguration) {
	if e := l.Spec.Exempt; e != nil {
		setNil(&e.NominalConcurrencyShares, 0)
		setNil(&e.LendablePercent, 0)
	}
	limited := l.Spec.Limited
	if limited == nil {
		return
	}
	setNil(&limited.NominalConcurrencyShares, defaultShares)
	setNil(&limited.LendablePercent, 0)
	if q := limited.LimitResponse.Queuing; q != nil {
		setZero(&q.HandSize, defaultHandSize)
		setZero(&q.Queues, defaultQueues)
		setZero(&q.QueueLengthLimit, defaultQueueLength)
	}
}

func setZero(v *int32, value int32) {
	if *v == 0 {
		*v = value
	}
}

func setNil(v **int32, value int32) {
	if *v == nil {
		*v = &value
	}
}
