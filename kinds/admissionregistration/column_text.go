package admissionregistration

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func mutatingAdmissionPolicyTexts() map[string]string {
	return map[string]string{
		"Mutations": "Mutation indicates the number of mutations rules defined in this configuration",
		"ParamKind": "ParamKind specifies the kind of resources used to parameterize this policy",
	}
}

func mutatingAdmissionPolicyBindingTexts() map[string]string {
	return map[string]string{
		"PolicyName": "PolicyName indicates the policy definition which the policy binding binded to",
		"ParamRef":   "ParamRef indicates the param resource which sets the configuration param",
	}
}

func webhookConfigurationTexts() map[string]string {
	return map[string]string{
		"Webhooks": "Webhooks indicates the number of webhooks registered in this configuration",
	}
}

func validatingAdmissionPolicyTexts() map[string]string {
	return map[string]string{
		"Validations": "Validations indicates the number of validation rules defined in this configuration",
		"ParamKind":   "ParamKind specifies the kind of resources used to parameterize this policy",
	}
}

func validatingAdmissionPolicyBindingTexts() map[string]string {
	return map[string]string{
		"PolicyName": "PolicyName indicates the policy definition which the policy binding binded to",
		"ParamRef":   "ParamRef indicates the param resource which sets the configuration param",
	}
}
