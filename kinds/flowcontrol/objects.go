package flowcontrol

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The users and groups that the first objects speak of.
const (
	masters           = "system:masters"
	authenticated     = "system:authenticated"
	unauthenticated   = "system:unauthenticated"
	nodes             = "system:nodes"
	serviceAccounts   = "system:serviceaccounts"
	controllerManager = "system:kube-controller-manager"
	scheduler         = "system:kube-scheduler"
)

// catchAll is the name of the level and of the schema that are always there for
// what nothing else fits.
const catchAll = flowcontrolv1.FlowSchemaNameCatchAll

// Objects are flow schemas and the levels that they speak of.
type Objects struct {
	Levels  []*flowcontrolv1.PriorityLevelConfiguration
	Schemas []*flowcontrolv1.FlowSchema
}

// Mandatory makes the objects without which a server does not run: what users
// make of them is put right, save for the exempt level's own shares.
func Mandatory() Objects {
	exempt := level(flowcontrolv1.PriorityLevelConfigurationNameExempt, flowcontrolv1.PriorityLevelConfigurationSpec{
		Type:   flowcontrolv1.PriorityLevelEnablementExempt,
		Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: number(0), LendablePercent: number(0)},
	})
	return Objects{
		Levels: []*flowcontrolv1.PriorityLevelConfiguration{rejecting(catchAll, 5), exempt},
		Schemas: []*flowcontrolv1.FlowSchema{
			schema("exempt", 1, exempt.Name, "", anything(groups(masters))),
			schema(catchAll, 10000, catchAll, byUser, anything(groups(unauthenticated, authenticated))),
		},
	}
}

// Suggested makes the objects that a cluster begins with and that its
// administrator may change.
func Suggested() Objects {
	everybody := groups(unauthenticated, authenticated)
	inSystem := account(metav1.NamespaceSystem, flowcontrolv1.NameAll)
	leases := in(coordinationv1.GroupName, "leases")
	return Objects{
		Levels: []*flowcontrolv1.PriorityLevelConfiguration{
			queued("system", 30, 33, deck{64, 6}),
			queued("node-high", 40, 25, deck{64, 6}),
			queued("leader-election", 10, 0, deck{16, 4}),
			queued("workload-high", 40, 50, deck{128, 6}),
			queued("workload-low", 100, 90, deck{128, 6}),
			queued("global-default", 20, 50, deck{128, 6}),
		},
		Schemas: []*flowcontrolv1.FlowSchema{
			schema("system-nodes", 500, "system", byUser, anything(groups(nodes))),
			schema("system-node-high", 400, "node-high", byUser, flowcontrolv1.PolicyRulesWithSubjects{
				Subjects:      groups(nodes),
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{withCluster(in("", "nodes", "nodes/status")), leases}}),
			schema("probes", 2, flowcontrolv1.PriorityLevelConfigurationNameExempt, "", flowcontrolv1.PolicyRulesWithSubjects{
				Subjects: everybody,
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{
					{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/readyz", "/livez"}}}}),
			schema("system-leader-election", 100, "leader-election", byUser, flowcontrolv1.PolicyRulesWithSubjects{
				Subjects:      append(users(controllerManager, scheduler), inSystem),
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{withVerbs(leases, "get", "create", "update")}}),
			schema("kube-controller-manager", 800, "workload-high", byNamespace, anything(users(controllerManager))),
			schema("kube-scheduler", 800, "workload-high", byNamespace, anything(users(scheduler))),
			schema("kube-system-service-accounts", 900, "workload-high", byNamespace, anything([]flowcontrolv1.Subject{inSystem})),
			schema("service-accounts", 9000, "workload-low", byUser, anything(groups(serviceAccounts))),
			schema("global-default", 9900, "global-default", byUser, anything(everybody)),
		},
	}
}

const (
	byUser      = flowcontrolv1.FlowDistinguisherMethodByUserType
	byNamespace = flowcontrolv1.FlowDistinguisherMethodByNamespaceType
)

// deck says among how many queues a flow is dealt how many.
type deck struct{ queues, hand int32 }

func queued(name string, shares, lendable int32, d deck) *flowcontrolv1.PriorityLevelConfiguration {
	return limited(name, shares, lendable, flowcontrolv1.LimitResponse{
		Type: flowcontrolv1.LimitResponseTypeQueue,
		Queuing: &flowcontrolv1.QueuingConfiguration{
			Queues: d.queues, HandSize: d.hand, QueueLengthLimit: defaultQueueLength}})
}

func rejecting(name string, shares int32) *flowcontrolv1.PriorityLevelConfiguration {
	return limited(name, shares, 0, flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject})
}

func limited(name string, shares, lendable int32, full flowcontrolv1.LimitResponse) *flowcontrolv1.PriorityLevelConfiguration {
	return level(name, flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: number(shares), LendablePercent: number(lendable), LimitResponse: full},
	})
}

func level(name string, spec flowcontrolv1.PriorityLevelConfigurationSpec) *flowcontrolv1.PriorityLevelConfiguration {
	return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: maintained(name), Spec: spec}
}

func schema(name string, precedence int32, level string, by flowcontrolv1.FlowDistinguisherMethodType, rules ...flowcontrolv1.PolicyRulesWithSubjects) *flowcontrolv1.FlowSchema {
	s := &flowcontrolv1.FlowSchema{ObjectMeta: maintained(name), Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
		MatchingPrecedence:         precedence, Rules: rules}}
	if by != "" {
		s.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: by}
	}
	return s
}

// maintained marks an object as one that a newer server may bring up to date.
func maintained(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Annotations: map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}}
}

// anything is a rule that fits whatever the subjects do.
func anything(subjects []flowcontrolv1.Subject) flowcontrolv1.PolicyRulesWithSubjects {
	return flowcontrolv1.PolicyRulesWithSubjects{
		Subjects:      subjects,
		ResourceRules: []flowcontrolv1.ResourcePolicyRule{withCluster(in(flowcontrolv1.APIGroupAll, flowcontrolv1.ResourceAll))},
		NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{
			{Verbs: []string{flowcontrolv1.VerbAll}, NonResourceURLs: []string{flowcontrolv1.NonResourceAll}}},
	}
}

// in is a rule for all verbs on some resources of a group, in every namespace.
func in(group string, resources ...string) flowcontrolv1.ResourcePolicyRule {
	return flowcontrolv1.ResourcePolicyRule{Verbs: []string{flowcontrolv1.VerbAll}, APIGroups: []string{group},
		Resources: resources, Namespaces: []string{flowcontrolv1.NamespaceEvery}}
}

func withCluster(r flowcontrolv1.ResourcePolicyRule) flowcontrolv1.ResourcePolicyRule {
	r.ClusterScope = true
	return r
}

func withVerbs(r flowcontrolv1.ResourcePolicyRule, verbs ...string) flowcontrolv1.ResourcePolicyRule {
	r.Verbs = verbs
	return r
}

func groups(names ...string) (all []flowcontrolv1.Subject) {
	for _, name := range names {
		all = append(all, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: name}})
	}
	return all
}

func users(names ...string) (all []flowcontrolv1.Subject) {
	for _, name := range names {
		all = append(all, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: name}})
	}
	return all
}

func account(namespace, name string) flowcontrolv1.Subject {
	return flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindServiceAccount,
		ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: namespace, Name: name}}
}

func number(n int32) *int32 { return &n }
