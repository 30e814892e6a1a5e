package apiregistration

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func apiServiceTexts() map[string]string {
	return map[string]string{
		"Service":   "The reference to the service that hosts this API endpoint.",
		"Available": "Whether this service is available.",
	}
}
