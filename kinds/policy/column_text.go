package policy

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func podDisruptionBudgetTexts() map[string]string {
	return map[string]string{
		"Min Available":       "The minimum number of pods that must be available.",
		"Max Unavailable":     "The maximum number of pods that may be unavailable.",
		"Allowed Disruptions": "Calculated number of pods that may be disrupted at this time.",
	}
}
