package critest

import "slices"

// part is one part of the exam.
type part struct {
	name string
	take func(*exam)
}

// parts are all of them; CONTRACT.md says which sentences each one is about.
func parts() []part { return slices.Concat(lives(), letters()) }

// lives are the parts about what sandboxes, containers and images live through.
func lives() []part {
	return []part{
		{"identity", identity},
		{"sandbox life", sandboxLife},
		{"sandbox lists", sandboxLists},
		{"sandbox refusals", sandboxRefusals},
		{"sandbox network", sandboxNetwork},
		{"sandbox names", sandboxNames},
		{"container life", containerLife},
		{"container lists", containerLists},
		{"container names are unique", containerNames},
		{"container that cannot start", containerCannotStart},
		{"container process", containerProcess},
		{"container users", containerUsers},
		{"container confinement", containerConfinement},
		{"container mounts", containerMounts},
		{"container stop", containerStop},
		{"container out of memory", containerOutOfMemory},
		{"container update", containerUpdate},
		{"container logs", containerLogs},
		{"namespaces", sharedNamespaces},
		{"user namespace", userNamespace},
		{"exec", execSync},
		{"exec output", execOutput},
		{"streams", execStreams},
		{"attach", attachStreams},
		{"port forward", portForward},
		{"events", events},
		{"stats", stats},
		{"metrics", metrics},
		{"profiles", profiles},
		{"calls made again", again},
		{"hostile working directory", hostileWorkdir},
		{"images", images},
		{"removal by force", removalByForce},
		{"many at once", manyAtOnce},
	}
}

// letters are the parts about single sentences.
func letters() []part {
	return []part{
		{"absent", absent},
		{"settings", settings},
		{"pod resources", podResources},
		{"mount sentences", mountSentences},
		{"device sentences", deviceSentences},
		{"streamed lists", streamed},
		{"statuses by the letter", statusesByTheLetter},
		{"lists by the letter", listsByTheLetter},
		{"image names", imageNames},
		{"sandboxes by the letter", sandboxByTheLetter},
		{"streams by the letter", streamsByTheLetter},
		{"privileged by the letter", privilegedByTheLetter},
		{"mount options", mountOptions},
		{"parts of images", imageParts},
		{"other streamed lists", restStreamed},
		{"checkpoints", checkpoints},
		{"versions", versions},
		{"sandbox attempts", sandboxAttempts},
		{"port mappings", portMappings},
		{"namespaces of the node", nodeNamespaces},
		{"namespaces refused", namespaceRefusals},
		{"capability sets", capabilitySets},
		{"mount propagation", mountPropagation},
		{"read-only below", readOnlyBelow},
		{"device permissions", devicePermissions},
		{"resources", resources},
		{"whole updates", wholeUpdates},
		{"old profiles", oldProfiles},
		{"identities", identities},
		{"log paths", logPaths},
		{"removal of what runs", runningRemoval},
		{"statuses of a pod", podStatuses},
		{"stream addresses", fullURLs},
		{"error output", errorOutput},
		{"numbers", numbers},
		{"metric promises", metricPromises},
		{"event statuses", eventStatuses},
		{"image pulls", imagePulls},
		{"image removal", imageRemoval},
		{"image credentials", imageCredentials},
		{"image tokens", imageTokens},
		{"image refusals", imageRefusals},
	}
}
