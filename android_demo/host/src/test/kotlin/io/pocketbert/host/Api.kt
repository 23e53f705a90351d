/*
 * What can be called of the Android libraries' classes: prints each class with its public members, a line each.
 *
 * android-api.txt was made by it from classes compiled from the libraries' own sources: org.pytorch.executorch at v1.4.1,
 * com.google.ai.edge.litert at f674577 (August 2026). Take an AAR's classes.jar on the class path to make it again.
 */
package io.pocketbert.host

import java.lang.reflect.Executable
import java.lang.reflect.Method
import java.lang.reflect.Modifier

private val LITERT = listOf(
    "Accelerator", "CompiledModel", "CompiledModel\$Companion", "CompiledModel\$CpuOptions", "CompiledModel\$Options",
    "CompiledModel\$Options\$Companion", "Environment", "Environment\$Companion", "JniHandle", "LiteRtException", "Status", "TensorBuffer",
).map { "com.google.ai.edge.litert.$it" }

private val EXECUTORCH = listOf(
    "EValue", "EValue\$Companion", "ExecutorchRuntimeException", "Module", "Module\$Companion", "Tensor", "Tensor\$Companion",
).map { "org.pytorch.executorch.$it" }

internal val CLASSES = LITERT + EXECUTORCH

/** The public members of a class, without those that the compiler makes for itself: they have a $ in their name. */
internal fun members(name: String): List<String> {
    val type = Class.forName(name, false, object {}.javaClass.classLoader)
    val methods = type.declaredMethods.filter { Modifier.isPublic(it.modifiers) && '$' !in it.name }.map(::shown)
    val constructors = type.declaredConstructors.filter { Modifier.isPublic(it.modifiers) && !it.isSynthetic }.map(::shown)
    val fields = type.declaredFields.filter { Modifier.isPublic(it.modifiers) && '$' !in it.name }.map { "${it.type.typeName} ${it.name}" }
    return (methods + constructors + fields).map { "$name: $it" }.sorted()
}

private fun shown(member: Executable): String {
    val result = (member as? Method)?.returnType?.typeName ?: "new"
    val static = if (Modifier.isStatic(member.modifiers)) "static " else ""
    return "$static$result ${member.name.substringAfterLast('.')}(${member.parameterTypes.joinToString { it.typeName }})"
}

fun main() = CLASSES.flatMap(::members).forEach(::println)
